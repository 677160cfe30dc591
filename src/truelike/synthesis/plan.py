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
    """The fingerprints of a generator, and of the adapter and the style that were learned on it,
    empty for none.
    """

    generator: str
    adapter: str = ""
    style: str = ""


def image_seed(seed: int, replica: int, source_key: str) -> int:
    """The seed of one image, from 0 to 2^63 - 1: its identity is (seed, replica, source key) and
    nothing else.
    """
    digest = hashlib.sha256(f"{seed}/{replica}/{source_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def caption_of(key: str, caption: str, rewrites: Sequence[str], replica: int) -> tuple[str, str]:
    """The key and the text of the caption that an image uses: ``KEY/N``, N = replica mod n of n
    rewrites, or its own.

    Its own caption's key is ``KEY``; both are empty where there is none.
    """
    if rewrites:
        number = replica % len(rewrites)
        return f"{key}/{number}", rewrites[number]
    return key if caption else "", caption


def draw_contexts(table: pd.DataFrame, prompts: Prompts, names: Sequence[str]) -> list[int]:
    """The row of `table` whose caption each image `names` is made with, one for each row.

    Its own, or one that its name and ``prompts.seed`` draw among the rows of its class or of the
    whole set that have a caption (BOB, arXiv 2510.24078). Its own where there is none.
    """
    if prompts.context == "own":
        return list(range(len(table)))
    groups = table["label"] if prompts.context == "class" else pd.Series(0, table.index)
    captioned = table.assign(group=groups, row=range(len(table)))[table["caption"] != ""]
    rows = captioned.sort_values("key").groupby("group")["row"].agg(list)
    drawn = []
    for own, (group, name) in enumerate(zip(groups, names, strict=True)):
        candidates = rows.get(group, [own])
        digest = hashlib.sha256(f"{prompts.seed}/context/{name}".encode()).digest()
        drawn.append(candidates[int.from_bytes(digest[:8], "big") % len(candidates)])
    return drawn


def make_plan(
    table: pd.DataFrame,
    prompts: Prompts,
    settings: Synthesize,
    visual_guidance: VisualGuidance,
    replica: int,
    learned: Learned,
) -> pd.DataFrame:
    """One row per real image, in their order; a replica is one synthetic image for each (1x).

    `table` has the columns key, label and class_name; caption, "" for none; rewrites, those of the
    caption, of which each replica uses the next; style, what stands for the style in the prompt.
    Which other replicas there are makes no difference to a replica's rows.
    """
    shared = shared_columns(prompts, settings, visual_guidance, replica, learned)
    reals = table.to_dict("records")
    names = [f"{real['key']}-r{replica}" for real in reals]
    contexts = [reals[row] for row in draw_contexts(table, prompts, names)]
    rows = []
    for real, name, of in zip(reals, names, contexts, strict=True):
        caption_key, caption = caption_of(of["key"], of["caption"], of["rewrites"], replica)
        row = {
            "key": name,
            "label": real["label"],
            "prompt": sampling_prompt(prompts, name, real["class_name"], caption, real["style"]),
            "caption_key": caption_key if prompts.caption else "",
            "source_key": real["key"],
            "seed": image_seed(settings.seed, replica, real["key"]),
        }
        rows.append(row | shared)
    return pd.DataFrame(rows)


def shared_columns(
    prompts: Prompts,
    settings: Synthesize,
    visual_guidance: VisualGuidance,
    replica: int,
    learned: Learned,
) -> dict[str, Any]:
    """What all rows of a replica have in common."""
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
    }


def batches(plan: pd.DataFrame, shard_size: int, batch_size: int) -> list[list[pd.DataFrame]]:
    """The fixed batches inside fixed shards in which a plan is rendered: a list of batches per
    shard.
    """
    shards = [plan.iloc[start : start + shard_size] for start in range(0, len(plan), shard_size)]
    return [
        [shard.iloc[i : i + batch_size] for i in range(0, len(shard), batch_size)]
        for shard in shards
    ]
