"""Figures and pictures: numbers are drawn where they are, texts stay texts, pixels stay pixels."""

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.support.report_material import build_material, membership
from truelike.reporting import curves, figures
from truelike.reporting.material import Material
from truelike.reporting.pictures import contact_sheet, data_uri, scale_to
from truelike.reporting.rendering import number
from truelike.reporting.settings import Rung
from truelike.reporting.style import points, to_svg
from truelike.reporting.waterfall import waterfall_steps


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return build_material(tmp_path_factory.mktemp("run"))


def test_figures_are_valid_svg_that_follows_the_theme(material):
    svg = to_svg(figures.class_figure(material.per_class, "coverage", "coverage"))
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    texts = {"".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")}
    assert {"real", "naive", "synthetic", "Stiefel & Söhne", "t-shirt"} <= texts
    assert "var(--synthetic, #0969c8)" in svg
    assert "<style" not in svg


def test_a_value_that_rounds_to_zero_has_no_minus():
    assert (points(-0.04), points(-0.4), number(-0.04)) == ("+0.0", "−0.4", "0.0")


def test_a_dollar_in_a_name_is_no_formula(material):
    named = material.per_class.replace({"class_name": {"t-shirt": "under $5 or $6"}})
    assert "under $5 or $6" in to_svg(figures.class_figure(named, "coverage", "coverage"))


def test_markers_of_a_figure_are_where_the_numbers_are():
    accuracy = {
        "real": {"top1": 60.0, "low": 58.0, "high": 61.0},
        "mixed": {"top1": 70.0, "low": 68.0, "high": 73.0},
    }
    axes = figures.accuracy_figure(accuracy, {"real": "extra", "mixed": "synthetic"}, 0.9).axes[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert lines[:4] == [
        ([58.0, 61.0], [0, 0]),
        ([60.0], [0]),
        ([68.0, 73.0], [1, 1]),
        ([70.0], [1]),
    ]
    assert lines[4][0] == [60.0, 60.0]
    assert "90 % interval" in axes.get_xlabel()


def test_class_figure_draws_the_interval_of_every_set_and_class(material):
    axes = figures.class_figure(material.per_class, "two_sample", "C2ST accuracy").axes[0]
    assert axes.get_xlabel() == "C2ST accuracy, 95 % interval"
    drawn = [np.array(c.get_segments())[:, :, 0] for c in axes.collections]
    rows = material.per_class[material.per_class["metric"] == "two_sample"]
    for kind, ends in zip(("real", "naive", "synthetic"), drawn, strict=True):
        np.testing.assert_allclose(ends, rows.loc[rows["set"] == kind, ["low", "high"]])


def test_waterfall_goes_from_the_first_synthetic_arm_to_real(material):
    rungs = [Rung(arm="naive"), Rung(arm="not_trained"), Rung(arm="synthetic", closes="content")]
    steps = waterfall_steps(rungs, material.comparisons)
    assert steps[["arm", "against"]].to_numpy().tolist() == [
        ["synthetic", "naive"],
        ["real", "synthetic"],
    ]
    assert steps["points"].tolist() == pytest.approx([66.2 - 55.4, 73.1 - 66.2])
    last = steps.iloc[-1]
    assert (last["low"], last["high"]) == pytest.approx(
        (6.9 - 0.7, 6.9 + 0.8)
    )  # turned round, and so its ends
    figure = figures.waterfall_figure(material.accuracy_metrics["accuracy"], steps, {}, 0.95)
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[0].patches]
    assert bars == [pytest.approx((55.4, 66.2)), pytest.approx((66.2, 73.1))]
    assert steps["closes"].tolist() == ["content", ""]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["naive", "content (synthetic)", "real"]
    assert waterfall_steps([], material.comparisons).empty


def test_confusion_is_in_percent_of_each_class(material):
    axes = figures.confusion_figure(material.confusion[material.confusion["arm"] == "real"]).axes[0]
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts == ["90", "5", "5", "5", "90", "5", "5", "5", "90"]


def law(size: float, top: float) -> float:
    """The accuracies of the material: error 20 / n below the top."""
    return top - 20 / size


def test_few_shot_curve_has_every_interval_the_law_and_what_sets_are_worth(material):
    worth = {"naive": None, "synthetic": {"value": 2.0, "low": 1.5, "high": 8.0}}
    axes = curves.few_shot_figure(material.curves, worth).axes[0]
    assert axes.get_xlabel().startswith("real training images per class")
    assert "(%)" in axes.get_ylabel()
    points, fitted, star = axes.lines
    assert points.get_xdata().tolist() == [1, 2, 5]
    assert np.array(axes.collections[0].get_segments())[:, :, 1].tolist() == [
        [59, 61],
        [69, 71],
        [75, 77],
    ]
    assert fitted.get_xdata()[[0, -1]].tolist() == pytest.approx([1, 5])
    np.testing.assert_allclose(fitted.get_ydata(), law(fitted.get_xdata(), 80), atol=0.05)
    assert (star.get_xdata().item(), star.get_ydata().item()) == (2.0, law(5, 70))
    assert star.get_label() == "all synthetic: worth 2.0"
    assert np.array(axes.collections[1].get_segments())[0, :, 0].tolist() == [1.5, 8.0]


def test_scaling_curve_shows_synthetic_sets_beside_all_real_images(material):
    axes = curves.scaling_figure(material.curves).axes[0]
    named = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert named == ["all real images", "naive", "synthetic"]
    assert set(axes.lines[0].get_ydata()) == {law(5, 80)}
    np.testing.assert_allclose(
        axes.lines[4].get_ydata(), law(axes.lines[4].get_xdata(), 70), atol=0.05
    )


def test_two_sizes_are_drawn_without_a_law(material):
    few = material.curves[material.curves["images_per_class"] < 5]
    assert len(curves.few_shot_figure(few, {"naive": None, "synthetic": None}).axes[0].lines) == 1
    assert len(curves.scaling_figure(few).axes[0].lines) == 3


def test_every_arm_has_its_interval_at_every_severity(material):
    axes = figures.severity_figure(material.ood, {"mixed": "synthetic"}, 0.9).axes[0]
    rows = material.ood[(material.ood["set"] == "corrupted") & material.ood["severity"].notna()]
    assert [line.get_label() for line in axes.lines] == rows["arm"].drop_duplicates().tolist()
    for line, bars in zip(axes.lines, axes.collections, strict=True):
        own = rows[rows["arm"] == line.get_label()]
        assert line.get_ydata().tolist() == own["value"].tolist()
        assert np.abs(line.get_xdata() - np.arange(6)).max() < 0.5
        np.testing.assert_allclose(np.array(bars.get_segments())[:, :, 1], own[["low", "high"]])
    assert "90 % intervals" in axes.get_xlabel()


def test_the_few_shot_axis_ends_where_nothing_can_be_estimated(material):
    wild = {"value": 3.0, "low": 1e-318, "high": 1e16}
    axes = curves.few_shot_figure(material.curves, {"synthetic": wild}).axes[0]
    assert axes.get_xlim() == pytest.approx((1 / 1.25, 4 * 5 * 1.25))
    assert any("worth 3.0" in text.get_text() for text in axes.get_legend().get_texts())
    flat = material.curves.assign(accuracy=[50.0, 50.0, 50.0] * 3)
    unfitted = curves.few_shot_figure(flat, {"synthetic": wild}).axes[0]
    assert len(unfitted.lines) == 1  # the points alone
    assert unfitted.get_xlim() == axes.get_xlim()


def test_roc_curves_are_drawn_on_logarithmic_axes_from_the_smallest_rate_that_was_measured():
    axes = figures.membership_figure(
        membership().query("attack == 'threshold'"), {"synthetic": "synthetic"}
    ).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlim() == axes.get_ylim() == (pytest.approx(1 / 400), 1)
    assert [line.get_label() for line in axes.lines[:2]] == ["real", "synthetic"]
    first = axes.lines[0]
    assert (first.get_xdata()[0], first.get_ydata()[0]) == (
        1 / 800,
        1 / 800,
    )  # of a rate of 0, outside of the axes
    assert first.get_ydata()[40] == pytest.approx(0.1**0.6)
    assert len({line.get_color() for line in axes.lines[:2]}) == 2


def test_similarity_histogram_adds_up_to_all_images(material):
    axes = figures.similarity_figure(material.near_copies).axes[0]
    for patch in axes.patches:
        assert patch.get_data().values.sum() == pytest.approx(100)


def test_contact_sheet_enlarges_by_whole_factors_and_keeps_every_pixel():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet([("", [image])], side=64))
    enlarged = image.repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (64, 64, 3))[:, :, 0]
    assert (windows == enlarged).all(axis=(2, 3, 4)).any()


def test_contact_sheet_has_room_for_uneven_rows_labels_and_headings():
    image = np.full((40, 20, 3), 7, np.uint8)
    sheet = contact_sheet(
        [("real", [image] * 3), ("Süßigkeiten", [image]), ("", [])], ["a", "a very long name", "b"]
    )
    assert sheet.width > 3 * 64
    assert sheet.height > 3 * 64
    assert (np.asarray(sheet) == 7).all(-1).sum() == 4 * 40 * 20


@pytest.mark.parametrize(
    ("size", "expected"), [((32, 32), (64, 64)), ((48, 24), (48, 24)), ((640, 320), (64, 32))]
)
def test_scaling(size, expected):
    assert scale_to(np.zeros((size[1], size[0], 3), np.uint8), 64).size == expected


def test_small_images_are_embedded_exactly_and_large_ones_as_thumbnails():
    from base64 import b64decode
    from io import BytesIO

    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    kind, data = data_uri(small).split(",")
    assert kind == "data:image/png;base64"
    assert (np.asarray(Image.open(BytesIO(b64decode(data)))) == small).all()
    kind, data = data_uri(np.zeros((512, 256, 3), np.uint8)).split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(BytesIO(b64decode(data))).size == (64, 128)
