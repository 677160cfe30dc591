"""What to make: a row per synthetic image, with everything that decides it. Pure: no model is
opened here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from truelike.generator.prompts import sampling_prompt
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.synthesis.settings import Synthesize


@dataclass(frozen=True)
class Learned:
    """The fingerprints of a generator, of the adapter and the style that were learned on it, and of
    the network whose feedback guides it, empty for none.
    """

    generator: str
    adapter: str = ""
    style: str = ""
    network: str = ""


def image_key(replica: int, source_key: str, draw: int = 0) -> str:
    """The key of the image number `draw` of its source in a replica."""
    return f"{source_key}-r{replica}" + (f"-{draw}" if draw else "")


def image_seed(seed: int, replica: int, source_key: str, draw: int = 0) -> int:
    """The seed of one image, from 0 to 2^63 - 1: its identity is (seed, replica, source key, draw)
    and nothing else; the draw counts the images of its source in the replica.
    """
    identity = f"{seed}/{replica}/{source_key}" + (f"/{draw}" if draw else "")
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def caption_of(key: str, caption: str, rewrites: Sequence[str], number: int) -> tuple[str, str]:
    """The key and the text of the caption that an image uses: ``KEY/N``, N = `number` mod n of n
    rewrites, or its own.

    Its own caption's key is ``KEY``; both are empty where there is none.
    """
    if rewrites:
        number %= len(rewrites)
        return f"{key}/{number}", rewrites[number]
    return key if caption else "", caption


def contexts(table: pd.DataFrame, prompts: Prompts) -> list[list[int]]:
    """The rows of `table` among which the images of each row draw whose caption they are made with
    (BOB, arXiv 2510.24078).

    Only itself; or those of its class, or of the whole set, that have a caption, in the order of
    their keys.
    """
    own = [[row] for row in range(len(table))]
    if prompts.context == "own":
        return own
    groups = table["label"] if prompts.context == "class" else pd.Series(0, table.index)
    captioned = table.assign(group=groups, row=range(len(table)))[table["caption"] != ""]
    rows = captioned.sort_values("key").groupby("group")["row"].agg(list).to_dict()
    return [rows.get(group, alone) for group, alone in zip(groups, own, strict=True)]


def drawn(rows: Sequence[int], seed: int, name: str) -> int:
    """One of the rows, drawn by the seed and an image's name."""
    digest = hashlib.sha256(f"{seed}/context/{name}".encode()).digest()
    return rows[int.from_bytes(digest[:8], "big") % len(rows)]


def make_plan(
    table: pd.DataFrame,
    prompts: Prompts,
    settings: Synthesize,
    visual_guidance: VisualGuidance,
    replica: int,
    learned: Learned,
    counts: Sequence[int] | None = None,
) -> pd.DataFrame:
    """A row per synthetic image: `counts` of each real image, in their order, or one of each (1x).
    A column `draw` numbers those of one source, where a source has several.

    `table` has the columns key, label and class_name; caption, "" for none; rewrites, those of the
    caption, of which each replica uses the next; style, what stands for the style in the prompt.
    Which other replicas there are makes no difference to a replica's rows.
    """
    shared = shared_columns(prompts, settings, visual_guidance, replica, learned)
    several = counts is not None and max(counts) > 1
    reals, rows = table.to_dict("records"), []
    times = counts if counts is not None else [1] * len(reals)
    for real, count, candidates in zip(reals, times, contexts(table, prompts), strict=True):
        for draw in range(count):
            name = image_key(replica, real["key"], draw)
            of = reals[drawn(candidates, prompts.seed, name)]
            number = replica + draw
            caption_key, caption = caption_of(of["key"], of["caption"], of["rewrites"], number)
            class_name, style = real["class_name"], real["style"]
            row = {
                "key": name,
                "label": real["label"],
                "prompt": sampling_prompt(prompts, name, class_name, caption, style),
                "caption_key": caption_key if prompts.caption else "",
                "source_key": real["key"],
                "seed": image_seed(settings.seed, replica, real["key"], draw),
            }
            rows.append(row | ({"draw": draw} if several else {}) | shared)
    return pd.DataFrame(rows)


def shared_columns(
    prompts: Prompts,
    settings: Synthesize,
    visual_guidance: VisualGuidance,
    replica: int,
    learned: Learned,
) -> dict[str, Any]:
    """What all rows of a replica have in common; of feedback nothing where it is off."""
    feedback = settings.feedback
    guided = {
        "feedback": feedback.criterion,
        "feedback_weight": feedback.weight,
        "feedback_every": feedback.every,
        "feedback_network": learned.network,
    }
    kind = visual_guidance.kind
    centroids = f"({visual_guidance.centroids})" if kind == "class_kmeans" else ""
    return {
        "split": "synthetic",
        "negative_prompt": prompts.negative,
        "replica": replica,
        "generator": learned.generator,
        "adapter": learned.adapter,
        "style": learned.style,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "guidance_low": settings.guidance_interval[0],
        "guidance_high": settings.guidance_interval[1],
        "strength": settings.strength,
        "lora_scale": settings.lora_scale if learned.adapter else 0.0,
        "visual_guidance": kind + centroids,
    } | (guided if feedback.is_on else {})


def batches(plan: pd.DataFrame, shard_size: int, batch_size: int) -> list[list[pd.DataFrame]]:
    """The fixed batches inside fixed shards in which a plan is rendered: a list of batches per
    shard.
    """
    shards = [plan.iloc[start : start + shard_size] for start in range(0, len(plan), shard_size)]
    return [
        [shard.iloc[i : i + batch_size] for i in range(0, len(shard), batch_size)]
        for shard in shards
    ]
