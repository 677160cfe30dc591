"""The report: one HTML file that needs nothing else, the verdict first."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from truelike.config import Params
from truelike.imageset.reading import ImageSet
from truelike.reporting import figures
from truelike.reporting.card import dataset_card
from truelike.reporting.html import flatten, template_environment
from truelike.reporting.markdown import accuracy_summary
from truelike.reporting.measures import ATTACKS, GAPS, MEASURES, arm_costs, recovery
from truelike.reporting.pictures import contact_sheet, data_uri
from truelike.reporting.provenance import ModelSource, warnings
from truelike.reporting.style import to_png, to_svg
from truelike.reporting.words import describe_arm

MAX_CLASSES = 24  # shown with pictures
MAX_ROWS = 40  # of the figures by class: the least covered classes
MAX_CONFUSED = 30  # classes: the figure of more would be too small to read
MAX_DROPPED = 12  # pictures per reason
MAX_PAIRS = 8  # near-copies per set
SETS = ("real", "naive", "synthetic")
KINDS = {"label": "Not recognised as its class", "near-copy": "Near-copy of a real training image"}


@dataclass(frozen=True)
class Material:
    """Everything the report tells of: image sets, tables and metrics of one finished pipeline
    run.
    """

    params: Params
    real: ImageSet
    naive: Sequence[ImageSet]
    synthetic: Sequence[ImageSet]
    captions: pd.DataFrame
    selection: pd.DataFrame
    accuracy: pd.DataFrame
    accuracy_metrics: Mapping[str, Any]
    comparisons: pd.DataFrame
    confusion: pd.DataFrame
    ood: pd.DataFrame
    ood_sets: Mapping[str, ImageSet]
    per_class: pd.DataFrame
    near_copies: pd.DataFrame
    curves: pd.DataFrame
    audit_metrics: Mapping[str, Any]
    membership: pd.DataFrame
    privacy_metrics: Mapping[str, Any]
    models: Sequence[ModelSource]
    costs: pd.DataFrame


def render(material: Material) -> str:
    """Render the page, HTML as one string; names and captions that come from a user are escaped."""
    environment = template_environment()
    environment.filters["duration"] = _duration
    params = material.params
    metrics = material.accuracy_metrics
    context = {
        "params": params,
        "level": f"{100 * params.evaluate.confidence:g} %",
        "warnings": warnings(params, list(material.models)),
        "verdict": metrics["verdict"],
        "accuracy": metrics["accuracy"],
        "differences": {
            arm: row for arm, row in metrics["difference_to_real"].items() if arm != "real"
        },
        "arms": {arm: describe_arm(setting) for arm, setting in params.train.arms.items()},
        "figures": _figures(material),
        "accuracies": _accuracies(material.accuracy),
        "class_accuracy": _class_accuracy(material),
        "classes": list(_classes(material)),
        "class_count": len(material.real.class_names),
        "image_counts": _image_counts(material),
        "cut": {
            "captions": int(material.captions["truncated"].sum()),
            "prompts": int(sum(images.index["truncated"].sum() for images in material.synthetic)),
        },
        "dropped": _dropped(material),
        "ood": metrics["ood"],
        "ood_pictures": list(_ood_pictures(material.ood_sets)),
        "comparisons": material.comparisons.to_dict("records"),
        "audit": {name: material.audit_metrics["measures"][name] for name in SETS},
        "gaps": material.audit_metrics["gaps"],
        "recovered": _recovered(params, material.comparisons),
        "measure_words": MEASURES,
        "gap_words": GAPS,
        "most_images": material.curves.groupby("set")["images_per_class"].max().to_dict(),
        "pairs": _pairs(material),
        "privacy": material.privacy_metrics,
        "attack_words": ATTACKS,
        "costs": material.costs.astype(object)
        .where(material.costs.notna(), None)
        .to_dict("records"),
        "arm_costs": arm_costs(
            material.costs, params.train.arms, params.partial, metrics["accuracy"]
        ),
        "settings": dict(flatten(params.model_dump())),
        "models": material.models,
    }
    return environment.get_template("template.html.j2").render(context)


def write_report(material: Material, folder: Path) -> None:
    """Write ``report.html``, ``summary.md``, ``DATASET.md``, ``pictures.png`` and ``accuracy.png``
    into `folder`.
    """
    params, accuracy = material.params, material.accuracy_metrics["accuracy"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(render(material), encoding="utf-8")
    (folder / "summary.md").write_text(
        accuracy_summary(material.accuracy_metrics, params), encoding="utf-8"
    )
    card = dataset_card(
        params,
        material.models,
        material.real.class_names,
        _image_counts(material),
        material.accuracy_metrics,
        material.audit_metrics,
        warnings(params, list(material.models)),
    )
    (folder / "DATASET.md").write_text("\n".join(card) + "\n", encoding="utf-8")
    overview(material).save(folder / "pictures.png")
    figure = figures.accuracy_figure(accuracy, _partners(params), params.evaluate.confidence)
    (folder / "accuracy.png").write_bytes(to_png(figure))


def overview(material: Material, rows: int = 2, columns: int = 10) -> Image.Image:
    """Real, naive and synthetic images of the first classes: a column per class, `rows` of each
    set.
    """
    names = material.real.class_names[:columns]
    sheet = []
    for name, images in (
        ("real", material.real),
        ("naive", material.naive[0]),
        ("synthetic", material.synthetic[0]),
    ):
        chosen = [np.flatnonzero(images.labels == label)[:rows] for label in range(len(names))]
        count = min(map(len, chosen))
        sheet += [
            (name if row == 0 else "", [images.pixels(own[row]) for own in chosen])
            for row in range(count)
        ]
    return contact_sheet(sheet, names)


def _partners(params: Params) -> dict[str, str]:
    return {arm: setting.partner for arm, setting in params.train.arms.items()}


def _figures(material: Material) -> dict[str, Markup]:
    """The figures as trusted SVG: matplotlib escapes the texts in them."""
    metrics, params = material.accuracy_metrics, material.params
    partners = _partners(params)
    level = params.evaluate.confidence
    differences = {arm: row for arm, row in metrics["difference_to_real"].items() if arm != "real"}
    shown = _least_covered(material.per_class)
    steps = recovery(params.report.waterfall, material.comparisons)
    online = material.membership[material.membership["attack"] == "lira_online"]
    confused = material.confusion[
        material.confusion["arm"] == (metrics["verdict"]["arm"] or "real")
    ]
    class_count = len(material.real.class_names)
    measures = material.audit_metrics["measures"]
    worth = {name: measures[name]["real_equivalent"] for name in SETS if name != "real"}
    drawn = {
        "accuracy": figures.accuracy_figure(metrics["accuracy"], partners, level),
        "differences": figures.difference_figure(differences, partners, level)
        if differences
        else None,
        "coverage": figures.class_figure(shown, "coverage", "coverage (share of real images)"),
        "two_sample": figures.class_figure(
            shown, "two_sample", "told apart from real ones (share)"
        ),
        "waterfall": figures.waterfall_figure(metrics["accuracy"], steps, partners, level)
        if len(steps)
        else None,
        "severity": figures.severity_figure(material.ood, partners, level)
        if len(material.ood_sets["corrupted"])
        else None,
        "few_shot": figures.few_shot_figure(material.curves, worth),
        "scaling": figures.scaling_figure(material.curves),
        "confusion": figures.confusion_figure(confused) if class_count <= MAX_CONFUSED else None,
        "similarity": figures.similarity_figure(material.near_copies),
        "membership": figures.membership_figure(online, partners) if len(online) else None,
    }
    return {name: Markup(to_svg(figure)) for name, figure in drawn.items() if figure is not None}


def _recovered(params: Params, comparisons: pd.DataFrame) -> dict[str, dict[str, float]]:
    """What closing each gap brings, by gap: points, low and high; empty where the waterfall closes
    none alone.
    """
    steps = recovery(params.report.waterfall, comparisons).to_dict("records")
    return {
        row["closes"]: {name: row[name] for name in ("points", "low", "high")}
        for row in steps
        if row["closes"]
    }


def _least_covered(per_class: pd.DataFrame) -> pd.DataFrame:
    own = per_class[(per_class["metric"] == "coverage") & (per_class["set"] == "synthetic")]
    if len(own) <= MAX_ROWS:
        return per_class
    return per_class[per_class["class_name"].isin(own.nsmallest(MAX_ROWS, "value")["class_name"])]


def _accuracies(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds on the test split: a row per arm, a column per metric that is not of one
    class.
    """
    rows = accuracy[(accuracy["split"] == "test") & ~accuracy["metric"].str.startswith("class:")]
    return rows.pivot_table(
        index="arm", columns="metric", values="value", aggfunc="mean", sort=False
    )


def _class_accuracy(material: Material) -> list[tuple[str, float, float]]:
    """(class name, accuracy of the arm `real`, accuracy of the verdict's arm), percent, means over
    seeds.
    """
    rows = material.accuracy[material.accuracy["split"] == "test"]
    means = rows.groupby(["arm", "metric"])["value"].mean()
    arm = material.accuracy_metrics["verdict"]["arm"]
    if arm is None:
        return []
    names = material.real.class_names
    return [
        (name, float(means["real", f"class:{name}"]), float(means[arm, f"class:{name}"]))
        for name in names
    ]


def _classes(material: Material) -> Iterator[dict[str, Any]]:
    """Per class, real training images and, under each, the synthetic images of the first replicas
    made for it.
    """
    real = material.real
    captions = material.captions.set_index("key")["caption"]
    own = (
        material.params.caption.images == "outputs/real/train"
    )  # otherwise they are captions of naive images
    reasons = _reasons(material.selection)
    naive, synthetic = material.naive[0], material.synthetic[0]
    naive_rows = {key: row for row, key in enumerate(naive.index["source_key"])}
    synthetic_rows = {key: row for row, key in enumerate(synthetic.index["source_key"])}
    for label, name in list(enumerate(real.class_names))[:MAX_CLASSES]:
        rows = np.flatnonzero(real.labels == label)[: material.params.report.pictures_per_class]
        keys = [real.keys[row] for row in rows]
        yield {
            "name": name,
            "real": [
                _picture(real, row, (own and captions[key]) or name)
                for row, key in zip(rows, keys, strict=True)
            ],
            "naive": [_synthetic_picture(naive, naive_rows[key], {}) for key in keys],
            "synthetic": [
                _synthetic_picture(synthetic, synthetic_rows[key], reasons) for key in keys
            ],
        }


def _picture(images: ImageSet, row: int, text: str) -> dict[str, str]:
    return {"uri": data_uri(images.pixels(row)), "text": text, "dropped": ""}


def _synthetic_picture(images: ImageSet, row: int, reasons: Mapping[str, str]) -> dict[str, str]:
    key, prompt = images.index["key"].iloc[row], images.index["prompt"].iloc[row]
    return _picture(images, row, prompt) | {"dropped": reasons.get(key, "")}


def _reasons(selection: pd.DataFrame) -> dict[str, str]:
    dropped = selection[~selection["keep"].astype(bool)]
    return dict(zip(dropped["key"], dropped["reason"], strict=True))


def _image_counts(material: Material) -> dict[str, int]:
    return {
        "real": len(material.real),
        "naive": sum(map(len, material.naive)),
        "synthetic": sum(map(len, material.synthetic)),
        "kept": int(material.selection["keep"].sum()),
    }


def _dropped(material: Material) -> list[dict[str, Any]]:
    """Dropped synthetic images by kind of reason, most frequent first, each with a few pictures."""
    reasons = pd.Series(_reasons(material.selection), dtype=object)
    kinds = reasons.map(lambda reason: re.split(r"[: ]", reason)[0])
    places = _places(material.synthetic)
    return [
        {
            "kind": KINDS[str(kind)],
            "count": int(count),
            "pictures": [
                _picture(*places[key], reason)
                for key, reason in reasons[kinds == kind].head(MAX_DROPPED).items()
            ],
        }
        for kind, count in kinds.value_counts().items()
    ]


def _places(sets: Sequence[ImageSet]) -> dict[Any, tuple[ImageSet, int]]:
    return {key: (images, row) for images in sets for row, key in enumerate(images.keys)}


def _pairs(material: Material) -> dict[str, list[dict[str, Any]]]:
    """The images most similar to a real training image, each beside it, per synthetic set."""
    real = _places([material.real])
    found = {}
    for name, sets in (("naive", material.naive), ("synthetic", material.synthetic)):
        places = _places(sets)
        rows = material.near_copies[material.near_copies["set"] == name].nlargest(
            MAX_PAIRS, "similarity"
        )
        found[name] = [
            {
                "image": _picture(*places[row.key], f"{name} image {row.key}"),
                "nearest": _picture(
                    *real[row.nearest_key], f"real training image {row.nearest_key}"
                ),
                "similarity": row.similarity,
            }
            for row in rows.itertuples()
        ]
    return found


def _ood_pictures(sets: Mapping[str, ImageSet]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(name, pictures): one image of each class of a set, and one image in all severities of each
    corruption.
    """
    for name, images in sets.items():
        index = images.index
        if name == "corrupted":
            for kind, rows in index.groupby("corruption", sort=False):
                first = rows[rows["source_key"] == rows["source_key"].iloc[0]]
                texts = [f"{kind}, severity {severity}" for severity in first["severity"]]
                yield (
                    str(kind),
                    [
                        _picture(images, row, text)
                        for row, text in zip(first.index, texts, strict=True)
                    ],
                )
        elif len(index):
            labels, firsts = np.unique(images.labels, return_index=True)
            shown = list(zip(firsts, labels, strict=True))[:MAX_CLASSES]
            yield (
                name,
                [_picture(images, int(row), images.class_names[label]) for row, label in shown],
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
