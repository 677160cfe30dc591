"""A finished pipeline run in miniature: every table and metric that the report reads, with made-up
numbers.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from stages.report import settings_of
from truelike.audit.gaps import GAPS
from truelike.config import Params, load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.reporting.compare import Run
from truelike.reporting.material import Material
from truelike.reporting.measures import MEASURES
from truelike.reporting.provenance import ModelSource
from truelike.runtime.ledger import FIELDS
from truelike.sources.ood import write_corrupted
from truelike.sources.settings import Corrupt

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["t-shirt", "<script>alert('bag')</script>", "Stiefel & Söhne"]
ARMS = {
    "real": 73.1,
    "naive": 55.4,
    "synthetic": 66.2,
    "mixed": 74.9,
    "bridged": 74.2,
    "bridged_pp": 75.8,
}
ARMS |= {"more_real": 83.3}
KINDS = ("noise", "blur", "contrast", "brightness", "pixelate", "jpeg")
SHOTS = 5


def pictures(count: int, shade: int) -> list[np.ndarray]:
    rng = np.random.default_rng(shade)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    for image in images:
        top, left = rng.integers(2, 10, 2)
        image[top : top + 18, left : left + 16] = rng.integers(shade // 2, shade, 3)
    return list(images)


def write_sets(folder: Path) -> dict[str, list[ImageSet]]:
    labels = np.arange(SHOTS * len(CLASSES)) % len(CLASSES)
    keys = [f"photo-{number:08x}" for number in range(len(labels))]
    sets: dict[str, list[ImageSet]] = {}
    for name, shade, replicas in (
        ("real", 250, [0]),
        ("naive", 120, [0, 1]),
        ("synthetic", 190, [0, 1]),
    ):
        sets[name] = []
        for replica in replicas:
            place = folder / name / str(replica)
            samples = [
                Sample(
                    key if name == "real" else f"{key}-r{replica}",
                    int(label),
                    pixels,
                    {"split": "train", "source": f"{key}.png"}
                    if name == "real"
                    else {
                        "source_key": key,
                        "prompt": f"a photo of {CLASSES[label]}",
                        "truncated": replica == 1,
                    },
                )
                for key, label, pixels in zip(
                    keys, labels, pictures(len(keys), shade + replica), strict=True
                )
            ]
            write_image_set(place, samples, CLASSES)
            sets[name].append(ImageSet(place))
    return sets


def selection_of(sets: list[ImageSet]) -> pd.DataFrame:
    table = pd.concat(
        [
            pd.DataFrame({"key": s.keys, "folder": s.folder.as_posix(), "label": s.labels})
            for s in sets
        ]
    )
    table = table.reset_index(drop=True).assign(keep=True, reason="")
    table.loc[0, ["keep", "reason"]] = [False, "label: 0.003 < 0.01"]
    table.loc[4, ["keep", "reason"]] = [False, "label: 0.0007 < 0.01"]
    table.loc[7, ["keep", "reason"]] = [False, "near-copy of photo-00000007"]
    return table


def accuracy_metrics() -> dict:
    real = ARMS["real"]
    return {
        "accuracy": {
            arm: {"top1": value, "low": value - 1.1, "high": value + 0.9, "validation": value + 0.3}
            for arm, value in ARMS.items()
        },
        "difference_to_real": {
            arm: {"points": value - real, "low": value - real - 0.8, "high": value - real + 0.7}
            | {"p_value": 0.0123, "p_holm": 0.0369, "detectable": 1.1}
            for arm, value in ARMS.items()
            if arm != "real"
        },
        "verdict": {
            "arm": "bridged_pp",
            "points": 2.7,
            "low": 1.9,
            "high": 3.4,
            "headline": "Synthetic data helped: +2.7 points [1.9, 3.4].",
            "basis": "bridged_pp, the best arm on validation, against real data alone: 95 % "
            "interval, 5 seeds, 5000 test images, one draw of the data.",
            "gain_by_class": {"shirt": 1.5, "coat": 1.0, "bag": 0.2},
            "carried_by": None,
            "near_ties": [],
        },
        "ood": {
            "accuracy": {
                name: {
                    arm: {"value": value - 20, "low": value - 22, "high": value - 18}
                    for arm, value in ARMS.items()
                }
                for name in ("sketches", "corrupted", *KINDS)
            },
            "mean_corruption_error": {
                arm: {"value": 91.5, "low": 88.0, "high": 95.1} for arm in ARMS
            }
            | {"naive": None},
        },
    }


def ood_table() -> pd.DataFrame:
    rows = [
        (arm, "sketches", None, value - 20, value - 22, value - 18) for arm, value in ARMS.items()
    ]
    for arm, value in ARMS.items():
        rows += [
            (
                arm,
                "corrupted",
                severity,
                value - 5 * severity,
                value - 5 * severity - 2,
                value - 5 * severity + 2,
            )
            for severity in range(6)
        ]
    table = pd.DataFrame(rows, columns=["arm", "set", "severity", "value", "low", "high"])
    return table.astype({"severity": "Int64"})


def ood_sets(folder: Path) -> dict[str, ImageSet]:
    labels = range(len(CLASSES))
    samples = [
        Sample(f"s{label}", label, pictures(3, 200)[label], {"source": f"{label}.png"})
        for label in labels
    ]
    write_image_set(folder / "sketches", samples, CLASSES)
    write_corrupted(
        ImageSet(folder / "sketches"),
        Corrupt(images_per_class=1, kinds=KINDS, seed=0),
        folder / "corrupted",
    )
    return {name: ImageSet(folder / name) for name in ("sketches", "corrupted")}


def accuracy_table() -> pd.DataFrame:
    metrics = ["top1", "top5", "balanced", "nll", "ece", *(f"class:{name}" for name in CLASSES)]
    rows = [
        (
            arm,
            seed,
            split,
            metric,
            0.8 if metric == "nll" else 0.05 if metric == "ece" else value + seed,
        )
        for arm, value in ARMS.items()
        for seed in (0, 1)
        for split in ("validation", "test")
        for metric in metrics
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "split", "metric", "value"])


def comparisons() -> pd.DataFrame:
    rows = [
        (
            b,
            a,
            ARMS[b] - ARMS[a],
            ARMS[b] - ARMS[a] - 0.8,
            ARMS[b] - ARMS[a] + 0.7,
            0.0123,
            0.2583,
            1.1,
        )
        for a, b in combinations(ARMS, 2)
    ]
    names = ["arm", "against", "points", "low", "high", "p_value", "p_holm", "detectable"]
    return pd.DataFrame(rows, columns=names)


def confusion() -> pd.DataFrame:
    rows = [
        (arm, own, other, 90 if own == other else 5)
        for arm in ARMS
        for other in CLASSES
        for own in CLASSES
    ]
    return pd.DataFrame(rows, columns=["arm", "class_name", "predicted", "count"])


def curves() -> pd.DataFrame:
    rows = [
        (name, size, top - 20 / size, top - 20 / size - 1, top - 20 / size + 1)
        for name, top in (("real", 80), ("naive", 60), ("synthetic", 70))
        for size in (1, 2, 5)
    ]
    return pd.DataFrame(rows, columns=["set", "images_per_class", "accuracy", "low", "high"])


def audit_metrics(coverage: dict[str, float]) -> dict:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.04}

    measures = {name: {m: interval(0.5) for m in MEASURES} for name in coverage}
    for name, value in coverage.items():
        measures[name]["coverage"] = interval(value)
    for name in ("naive", "synthetic"):
        measures[name]["real_equivalent"] = {"value": 3.2, "low": 2.1, "high": 4.7}
    return {
        "measures": measures,
        "gaps": {gap: {n: interval(0.2) for n in ("naive", "synthetic")} for gap in GAPS},
    }


ATTACKED = {"real": 0.4, "synthetic": 0.02}


def privacy_metrics(images: int = 400) -> dict:
    """What was found about two arms, with too few images for 0.1 % FPR."""

    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.03}

    numbers = {
        arm: {
            "auc": interval(0.5 + tpr),
            "tpr_at_1_in_1000": None,
            "tpr_at_1_in_100": interval(tpr),
        }
        | {"balanced_accuracy": interval(0.5 + tpr / 2)}
        for arm, tpr in ATTACKED.items()
    }
    arms = {
        arm: dict.fromkeys(("lira_online", "lira_offline", "threshold"), own)
        for arm, own in numbers.items()
    }
    return {"shadows": 6, "images": images // 3, "trials": images, "arms": arms}


def membership() -> pd.DataFrame:
    rates = np.linspace(0, 1, 401)
    rows = [
        pd.DataFrame({"arm": arm, "attack": attack, "fpr": rates, "tpr": rates ** (1 - tpr)})
        for arm, tpr in ATTACKED.items()
        for attack in ("lira_online", "threshold")
    ]
    return pd.concat(rows, ignore_index=True)


def near_copies(sets: dict[str, list[ImageSet]]) -> pd.DataFrame:
    real = sets["real"][0]
    rows = [
        (name, key, real.keys[row % len(real)], float(0.95 - 0.01 * row - 0.05 * (name == "naive")))
        for name in ("naive", "synthetic")
        for images in sets[name][:1]
        for row, key in enumerate(images.keys)
    ]
    rows += [("real", f"held-out-{row}", real.keys[0], 0.9 - 0.01 * row) for row in range(20)]
    return pd.DataFrame(rows, columns=["set", "key", "nearest_key", "similarity"])


def losses() -> pd.DataFrame:
    """Losses that fall with the step, of everything that is trained."""
    runs = [("inversion", "style"), ("adaptation", "adapter"), *(("training", a) for a in ARMS)]
    tables = [
        pd.DataFrame({"step": range(60), "loss": 1 / np.arange(1, 61), "kind": kind, "run": run})
        for kind, run in runs
    ]
    return pd.concat(tables, ignore_index=True)


def build_material(folder: Path, params: Params | None = None) -> Material:
    """Write small image sets below `folder` and make up the rest of a run on them."""
    sets = write_sets(folder)
    coverage = {"real": 0.9, "naive": 0.35, "synthetic": 0.75}
    per_class = [
        (
            name,
            class_name,
            metric,
            value - 0.1 * number,
            value - 0.15 - 0.1 * number,
            value + 0.05 - 0.1 * number,
        )
        for name, value in coverage.items()
        for metric in ("coverage", "two_sample")
        for number, class_name in enumerate(CLASSES)
    ]
    real = sets["real"][0]
    captions = pd.DataFrame(
        {"key": real.keys, "caption": "a dark bag on white", "truncated": False}
    )
    captions.loc[2, "truncated"] = True
    runs = [
        ("2026-01-02T03:04:05+00:00", "adapt", 61.2, None, 900, 3456, 2, "NVIDIA Z9", 7.5),
        ("2026-01-02T03:04:15+00:00", "synthesize@0", 10.0, 25, 900, 2900, 2, "NVIDIA Z9", 1.5),
        ("2026-01-02T03:05:05+00:00", "train@real", 30.0, None, 800, None, 2, "cpu", None),
        ("2026-01-02T03:06:05+00:00", "train@mixed", 40.0, None, 800, None, 2, "cpu", None),
    ]
    costs = pd.DataFrame(runs, columns=list(FIELDS))
    return Material(
        settings=settings_of(params or load_params(ROOT / "recipes/default.yaml")),
        real=real,
        validation=real,
        naive=sets["naive"],
        synthetic=sets["synthetic"],
        captions=captions,
        caption_summary={
            "captions": len(real),
            "contradicting": 2,
            "by_class": {"t-shirt": 2},
            "recaptioned": 0,
            "dropped": 0,
        },
        selection=selection_of(sets["synthetic"]),
        accuracy=accuracy_table(),
        accuracy_metrics=accuracy_metrics(),
        comparisons=comparisons(),
        confusion=confusion(),
        ood=ood_table(),
        ood_sets=ood_sets(folder / "ood"),
        per_class=pd.DataFrame(
            per_class, columns=["set", "class_name", "metric", "value", "low", "high"]
        ),
        near_copies=near_copies(sets),
        curves=curves(),
        audit_metrics=audit_metrics(coverage),
        membership=membership()[:0],
        privacy_metrics={"shadows": 0, "images": 0, "trials": 0, "arms": {}},
        models=[
            ModelSource(
                "generator",
                "models/generator",
                "local directory",
                True,
                (("w.safetensors", "ab" * 32),),
                "see `models/README.md`",
            )
        ],
        losses=losses(),
        costs=costs,
    )


def run_of(name: str, **settings: str) -> Run:
    return Run(
        name,
        settings,
        accuracy_metrics(),
        audit_metrics({"real": 0.9, "naive": 0.3, "synthetic": 0.7}),
    )
