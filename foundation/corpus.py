"""Renders garments as a colour catalogue, never a white or grey garment on a black ground.

Every rendered image has a row of attributes in ``corpus_index.parquet``: class, colour, shade,
ground, pattern, and the measured length and width.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from foundation.attributes import (
    CLASS_NAMES,
    COLOURS,
    GROUNDS,
    HELD_OUT,
    PATTERNS,
    PROPERTIES,
    SHADED,
    SHADES,
    SIZE,
)
from foundation.fashion import splits
from foundation.paths import CORPUS, CORPUS_INDEX
from foundation.settings import Corpus, Settings
from foundation.source import digest, read_images, read_labels


def measure(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> pd.DataFrame:
    """Measure each garment's ``length`` (long | short) and ``width`` (wide | narrow), "" for the
    middle of its class.

    Length is the height of the bounding box over its width, width the share of the box that the
    garment fills; the outer quarters of each class get the words.
    """
    mask = images > 24
    rows, columns = mask.any(2), mask.any(1)
    height = images.shape[1] - rows.argmax(1) - rows[:, ::-1].argmax(1)
    width = images.shape[2] - columns.argmax(1) - columns[:, ::-1].argmax(1)
    measures = {
        "length": (height / width, ("short", "long")),
        "width": (mask.sum((1, 2)) / (height * width), ("narrow", "wide")),
    }
    words = {}
    for name, (value, (low, high)) in measures.items():
        rank = pd.Series(value).groupby(labels).rank(pct=True).to_numpy()
        words[name] = np.select([rank <= 0.25, rank > 0.75], [low, high], "")
    return pd.DataFrame(words)


def draw_attributes(count: int, settings: Corpus, rng: np.random.Generator) -> pd.DataFrame:
    """Draw colour, shade, ground and pattern of ``count`` images; held-out pairs of colour and
    ground have weight 0.
    """
    pairs = [(colour, ground) for colour in COLOURS for ground in GROUNDS]
    weights = np.array(
        [
            0.0
            if pair in HELD_OUT
            else settings.colour_weights.get(pair[0], 1.0)
            * settings.ground_weights.get(pair[1], 1.0)
            for pair in pairs
        ]
    )
    drawn = rng.choice(len(pairs), count, p=weights / weights.sum())
    colour = np.array([pair[0] for pair in pairs])[drawn]
    shade = np.where(np.isin(colour, SHADED), rng.choice(SHADES, count, p=(0.5, 0.25, 0.25)), "")
    return pd.DataFrame(
        {
            "colour": colour,
            "shade": shade,
            "ground": np.array([pair[1] for pair in pairs])[drawn],
            "pattern": rng.choice(PATTERNS, count, p=settings.pattern_shares),
        }
    )


def garment_colours(
    colour: NDArray[np.str_], shade: NDArray[np.str_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a jittered RGB for each colour word: (N, 3) in [0, 1]."""
    rgb = np.array([COLOURS[name] for name in colour])
    rgb = rgb * rng.uniform(0.94, 1.06, (len(rgb), 1))
    rgb = rgb + np.where(np.isin(colour, ("white", "grey")), 0.008, 0.03)[
        :, None
    ] * rng.standard_normal(rgb.shape)
    light, dark = rng.uniform(0.3, 0.45, len(rgb)), rng.uniform(0.5, 0.65, len(rgb))
    rgb = np.where((shade == "light")[:, None], rgb + (1 - rgb) * light[:, None], rgb)
    return np.clip(np.where((shade == "dark")[:, None], rgb * dark[:, None], rgb), 0, 1)


def ground_colours(ground: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a jittered RGB for each ground word: (N, 3) in [0, 1]; most black grounds are exactly
    black.
    """
    rgb = np.array([GROUNDS[name] for name in ground])
    jitter = 0.015 * rng.standard_normal(rgb.shape)
    jitter[(ground == "black") & (rng.random(len(rgb)) < 0.7)] = 0
    return np.clip(rgb + jitter, 0, 1)


def pattern_masks(pattern: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw where the second colour of each pattern lies: (N, SIZE, SIZE) in [0, 1]; 0 for plain."""
    count = len(pattern)
    y, x = np.mgrid[:SIZE, :SIZE][:, None]
    period, phase_x, phase_y = (
        rng.uniform(low, high, (count, 1, 1)) for low, high in ((4, 7), (0, 7), (0, 7))
    )
    across = np.where(rng.random((count, 1, 1)) < 0.5, x, y)
    stripes = np.sin(2 * np.pi * (across + phase_x) / period) > 0
    dots = (
        np.sin(np.pi * (x + phase_x) / period) * np.sin(np.pi * (y + phase_y) / period)
    ) ** 2 > 0.45
    return np.select(
        [(pattern == name)[:, None, None] for name in PATTERNS[1:]], [stripes, dots], 0
    ).astype(np.float32)


def place(
    images: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift garments onto the canvas: their grey value and their coverage, each (N, SIZE,
    SIZE) in [0, 1].
    """
    count = len(images)
    covered = ndimage.grey_closing((images > 12).astype(np.float32), (1, 3, 3))
    grey = (
        images / np.maximum(np.percentile(images.reshape(count, -1), 97, axis=1), 64)[:, None, None]
    )
    layers = torch.from_numpy(np.stack([np.clip(grey, 0, 1), covered], 1).astype(np.float32))
    scale = (
        np.where(rng.random(count) < 0.4, 1.0, rng.uniform(0.8, 1.08, count))
        * images.shape[1]
        / SIZE
    )
    shift = rng.uniform(-2, 2, (2, count)) * 2 / SIZE
    exact = rng.random(count) < 0.4  # whole pixels keep the source's sharpness
    shift = np.where(exact, np.round(shift * SIZE / 2) * 2 / SIZE, shift)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = (shift / scale).T
    grid = F.affine_grid(torch.from_numpy(theta), [count, 2, SIZE, SIZE], align_corners=False)
    grey, covered = F.grid_sample(layers, grid, align_corners=False).numpy().transpose(1, 0, 2, 3)
    return grey, covered


def render(
    images: NDArray[np.uint8], attributes: pd.DataFrame, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Render garments, (N, 28, 28) light on black, as their attributes say: (N, SIZE, SIZE, 3)."""
    words = {
        name: attributes[name].to_numpy(dtype=str)
        for name in ("colour", "shade", "ground", "pattern")
    }
    if any(
        ((words["colour"] == colour) & (words["ground"] == ground)).any()
        for colour, ground in HELD_OUT
    ):
        raise ValueError(f"these pairs of colour and ground are held out: {HELD_OUT}")
    grey, covered = place(images, rng)
    first = garment_colours(words["colour"], words["shade"], rng)
    bright = first.mean(1, keepdims=True) > 0.62
    second = np.where(bright, first * 0.45, first + (1 - first) * 0.7)
    ground = ground_colours(words["ground"], rng)
    weight = pattern_masks(words["pattern"], rng)[..., None]
    colour = first[:, None, None] * (1 - weight) + second[:, None, None] * weight
    floor = rng.uniform(0.1, 0.4, (len(images), 1, 1, 1))
    shaded = colour * (floor + (1 - floor) * grey[..., None])
    canvas = shaded * covered[..., None] + ground[:, None, None] * (1 - covered[..., None])
    return np.round(255 * canvas).astype(np.uint8)


def original_look(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad images to the canvas as they are, light on black: (N, SIZE, SIZE, 3)."""
    margin = (SIZE - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    return np.repeat(padded[..., None], 3, axis=3)


def sources(settings: Settings) -> NDArray[np.int64]:
    """Choose the train images that the corpus is made of: those before the user's, none equal to
    one of the user's.
    """
    files = {name: read_images(name) for name in ("train", "t10k")}
    users = {
        digest(files[name][i])
        for name, indices in splits(settings.fashion).values()
        for i in indices
    }
    train = files["train"][: settings.fashion.pool_start]
    return np.array([index for index, image in enumerate(train) if digest(image) not in users])


def main() -> None:
    settings = Settings.load()
    corpus = settings.corpus
    rng = np.random.default_rng(corpus.seed)
    chosen = sources(settings)
    images, labels = read_images("train")[chosen], read_labels("train")[chosen]
    table = measure(images, labels)
    table.insert(0, "source", chosen)
    table.insert(1, "sha256", [digest(image)[:8] for image in images])
    table.insert(
        2,
        "split",
        np.where(np.arange(len(chosen)) < len(chosen) - corpus.held_out, "train", "held-out"),
    )
    table["class"] = np.array(CLASS_NAMES)[labels]
    variants = []
    CORPUS.mkdir(parents=True, exist_ok=True)
    shape = (len(chosen) * corpus.variants, SIZE, SIZE, 3)
    rendered = np.lib.format.open_memmap(CORPUS / "images.npy", "w+", np.uint8, shape)
    for variant in range(corpus.variants):
        attributes = draw_attributes(len(chosen), corpus, rng)
        for start in range(0, len(chosen), 4096):
            part = slice(start, start + 4096)
            first = variant * len(chosen) + start
            batch = render(images[part], attributes.iloc[part], rng)
            rendered[first : first + len(batch)] = batch
        variants.append(pd.concat([table, attributes], axis=1))
    rendered.flush()
    index = pd.concat(variants, ignore_index=True)
    words = ["split", *PROPERTIES]
    index[words] = index[words].astype("category")
    index.to_parquet(CORPUS_INDEX, index=False, compression="zstd")


if __name__ == "__main__":
    main()
