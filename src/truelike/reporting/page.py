"""The report: one HTML file that needs nothing else, the verdict first."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from truelike.audit.gaps import GAPS
from truelike.reporting import curves, figures
from truelike.reporting.arms import describe_arm
from truelike.reporting.card import dataset_card
from truelike.reporting.caveats import caveats
from truelike.reporting.costs import active_stages, arm_costs
from truelike.reporting.examples import (
    class_examples,
    dropped_examples,
    near_copy_pairs,
    ood_examples,
    overview,
)
from truelike.reporting.material import Material
from truelike.reporting.measures import ATTACKS, MEASURES
from truelike.reporting.rendering import render_template
from truelike.reporting.style import to_png, to_svg
from truelike.reporting.summary import accuracy_summary
from truelike.reporting.waterfall import gains_by_gap, waterfall_steps

MAX_ROWS = 40  # of the figures by class: the least covered classes
MAX_GAINS = 10  # classes whose part in the gain is named at the top
MAX_CONFUSED = 30  # classes: the figure of more would be too small to read
SETS = ("real", "naive", "synthetic")


def render(material: Material) -> str:
    """Render the page, HTML as one string; names and captions that come from a user are escaped."""
    settings, metrics = material.settings, material.accuracy_metrics
    costs = material.costs[material.costs["stage"].isin(active_stages(settings))]
    steps = waterfall_steps(settings.report.waterfall, material.comparisons)
    return render_template(
        "report.html.j2",
        settings=settings,
        level=f"{100 * settings.evaluate.confidence:g} %",
        caveats=caveats(material),
        verdict=metrics["verdict"],
        gains_by_class=_gains_by_class(metrics["verdict"]["gain_by_class"]),
        accuracy=metrics["accuracy"],
        differences=metrics["difference_to_real"],
        arms={arm: describe_arm(setting) for arm, setting in settings.train.arms.items()},
        figures=_figures(material, steps),
        accuracies=_accuracies(material.accuracy),
        class_accuracy=_class_accuracy(material),
        classes=list(class_examples(material)),
        class_count=len(material.real.class_names),
        image_counts=material.image_counts(),
        class_counts=material.class_counts(),
        dropped=dropped_examples(material),
        ood=metrics["ood"],
        ood_pictures=list(ood_examples(material.ood_sets)),
        comparisons=material.comparisons.to_dict("records"),
        audit={name: material.audit_metrics["measures"][name] for name in SETS},
        gaps=material.audit_metrics["gaps"],
        gap_kinds=GAPS,
        gains=gains_by_gap(steps),
        measure_titles=MEASURES,
        most_images=material.curves.groupby("set")["images_per_class"].max().to_dict(),
        pairs=near_copy_pairs(material),
        privacy=material.privacy_metrics,
        attacks=ATTACKS,
        costs=costs.astype(object).where(costs.notna(), None).to_dict("records"),
        arm_costs=arm_costs(costs, settings, metrics["accuracy"]),
        models=material.models,
        loss_kinds=set(material.losses["kind"]),
    )


def write_report(material: Material, folder: Path) -> None:
    """Write ``report.html``, ``summary.md``, ``DATASET.md``, the pictures ``pictures.png`` and
    ``accuracy.png``, and ``losses/RUN.csv`` (step, loss) into `folder`.
    """
    settings, metrics = material.settings, material.accuracy_metrics
    confidence = settings.evaluate.confidence
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.html": render(material),
        "summary.md": accuracy_summary(metrics, settings.train.arms, confidence),
        "DATASET.md": dataset_card(material, caveats(material)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "losses").mkdir(exist_ok=True)
    for run, rows in material.losses.groupby("run", sort=False):
        rows[["step", "loss"]].to_csv(folder / "losses" / f"{run}.csv", index=False)
    overview(material).save(folder / "pictures.png")
    figure = figures.accuracy_figure(metrics["accuracy"], settings.partners, confidence)
    (folder / "accuracy.png").write_bytes(to_png(figure))


def _figures(material: Material, steps: pd.DataFrame) -> dict[str, Markup]:
    """The figures as trusted SVG: matplotlib escapes the texts in them. None is drawn of what was
    not measured.
    """
    metrics, settings = material.accuracy_metrics, material.settings
    partners, level = settings.partners, settings.evaluate.confidence
    accuracy, differences = metrics["accuracy"], metrics["difference_to_real"]
    by_class = _least_covered(material.per_class)
    online = material.membership[material.membership["attack"] == "lira_online"]
    judge = metrics["verdict"]["arm"] or "real"
    confusion = material.confusion[material.confusion["arm"] == judge]
    measures = material.audit_metrics["measures"]
    worth = {name: measures[name]["real_equivalent"] for name in SETS if name != "real"}
    drawn = {
        "accuracy": figures.accuracy_figure(accuracy, partners, level),
        "coverage": figures.class_figure(by_class, "coverage", "coverage (share of real images)"),
        "two_sample": figures.class_figure(by_class, "two_sample", "C2ST accuracy"),
        "few_shot": curves.few_shot_figure(material.curves, worth),
        "scaling": curves.scaling_figure(material.curves),
        "similarity": figures.similarity_figure(material.near_copies),
    }
    for kind, rows in material.losses.groupby("kind", sort=False):
        drawn[f"loss_{kind}"] = curves.loss_figure(rows, partners)
    if differences:
        drawn["differences"] = figures.difference_figure(differences, partners, level)
    if len(steps):
        drawn["waterfall"] = figures.waterfall_figure(accuracy, steps, partners, level)
    if len(material.ood_sets["corrupted"]):
        drawn["severity"] = figures.severity_figure(material.ood, partners, level)
    if len(material.real.class_names) <= MAX_CONFUSED:
        drawn["confusion"] = figures.confusion_figure(confusion)
    if len(online):
        drawn["membership"] = figures.membership_figure(online, partners)
    return {name: Markup(to_svg(figure)) for name, figure in drawn.items()}


def _gains_by_class(gains: Mapping[str, float]) -> list[tuple[str, float]]:
    """The classes with the largest gain or loss, the largest gain first, and all others together
    where there are more than MAX_GAINS.
    """
    largest = sorted(gains, key=lambda name: abs(gains[name]), reverse=True)[:MAX_GAINS]
    rows = sorted(((name, gains[name]) for name in largest), key=lambda row: -row[1])
    rest = len(gains) - len(rows)
    total = sum(gains.values()) - sum(gain for _, gain in rows)
    return [*rows, (f"{rest} other classes", total)] if rest else rows


def _least_covered(per_class: pd.DataFrame) -> pd.DataFrame:
    rows = per_class[(per_class["metric"] == "coverage") & (per_class["set"] == "synthetic")]
    if len(rows) <= MAX_ROWS:
        return per_class
    least = rows.nsmallest(MAX_ROWS, "value")["class_name"]
    return per_class[per_class["class_name"].isin(least)]


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
    return [
        (name, float(means["real", f"class:{name}"]), float(means[arm, f"class:{name}"]))
        for name in material.real.class_names
    ]
