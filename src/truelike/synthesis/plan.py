"""What to make: a row per synthetic image, with everything that decides it. Pure: no model is
opened here.
"""

import hashlib
from collections.abc import Sequence

import pandas as pd

from truelike.generator.prompts import sampling_prompt
from truelike.generator.settings import Prompts, VisualGuidance
from truelike.synthesis.settings import Synthesize


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


def make_plan(
    real: pd.DataFrame,
    captions: Sequence[str],
    rewrites: Sequence[Sequence[str]],
    prompts: Prompts,
    settings: Synthesize,
    visual_guidance: VisualGuidance,
    replica: int,
    *,
    generator: str,
    adapter: str,
    style: str,
    style_texts: Sequence[str],
) -> pd.DataFrame:
    """One row per real image (key, label, class_name), in their order; a replica is one synthetic
    image for each (1x).

    `captions` are the real images' captions, "" for none; `rewrites` are those of each caption, of
    which each replica uses the next; `style_texts` is what stands for the style in their prompts.
    `generator`, `adapter` and `style` are fingerprints. Which other replicas there are makes no
    difference to a replica's rows.
    """
    kind = visual_guidance.kind
    shared = {
        "split": "synthetic",
        "negative_prompt": prompts.negative,
        "replica": replica,
        "generator": generator,
        "adapter": adapter,
        "style": style,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "guidance_low": settings.guidance_interval[0],
        "guidance_high": settings.guidance_interval[1],
        "strength": settings.strength,
        "lora_scale": settings.lora_scale if adapter else 0.0,
        "visual_guidance": f"{kind}({visual_guidance.centroids})"
        if kind == "class_kmeans"
        else kind,
    }
    rows = []
    for key, label, class_name, own, others, style_text in zip(
        real["key"], real["label"], real["class_name"], captions, rewrites, style_texts, strict=True
    ):
        name = f"{key}-r{replica}"
        caption_key, caption = caption_of(key, own, others, replica)
        row = {
            "key": name,
            "label": label,
            "prompt": sampling_prompt(prompts, name, class_name, caption, style_text),
            "caption_key": caption_key if prompts.caption else "",
            "source_key": key,
            "seed": image_seed(settings.seed, replica, key),
        }
        rows.append(row | shared)
    return pd.DataFrame(rows)


def batches(plan: pd.DataFrame, shard_size: int, batch_size: int) -> list[list[pd.DataFrame]]:
    """The fixed batches inside fixed shards in which a plan is rendered: a list of batches per
    shard.
    """
    shards = [plan.iloc[start : start + shard_size] for start in range(0, len(plan), shard_size)]
    return [
        [shard.iloc[i : i + batch_size] for i in range(0, len(shard), batch_size)]
        for shard in shards
    ]
