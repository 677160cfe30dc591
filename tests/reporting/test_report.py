"""The report: what the page says and shows, that it needs nothing else, and that names cannot break
it.
"""

import copy
import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.report import settings_of
from tests.support.report_material import (
    ARMS,
    CLASSES,
    ROOT,
    SHOTS,
    build_material,
    membership,
    privacy_metrics,
)
from truelike.audit.gaps import GAPS
from truelike.config import load_params, parse_params
from truelike.evaluation.verdict import NO_VERDICT
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.reporting import figures
from truelike.reporting.arms import describe_arm
from truelike.reporting.caveats import caveats
from truelike.reporting.costs import active_stages
from truelike.reporting.examples import class_examples, overview
from truelike.reporting.material import Material
from truelike.reporting.measures import MEASURES
from truelike.reporting.page import render, write_report
from truelike.reporting.pictures import contact_sheet, data_uri
from truelike.reporting.provenance import ModelSource, model_sources, used_models
from truelike.reporting.style import short
from truelike.reporting.summary import accuracy_summary, key_numbers
from truelike.training.settings import Arm

SECTIONS = [
    "accuracy",
    "pictures",
    "selection",
    "fidelity",
    "gaps",
    "copies",
    "ood",
    "losses",
    "cost",
    "settings",
    "again",
]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects a page's elements and text, and checks that every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def headings(page: Page) -> list[str | None]:
    """The sections' ids in order, without that of the warnings."""
    return [attributes["id"] for attributes in page.all("h2") if attributes["id"] != "warnings"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return build_material(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(material: Material) -> str:
    return render(material)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def changed(material: Material, **fields: object) -> Material:
    return Material(**{**vars(material), **fields})


def with_params(material: Material, **values: object) -> Material:
    raw = load_params(ROOT / "recipes/default.yaml").model_dump(mode="json")
    for name, value in values.items():
        section, field = name.split("__")
        raw[section][field] = value
    return changed(material, settings=settings_of(parse_params(raw)))


def test_page_is_well_formed_and_has_every_section_in_order(page):
    assert page.open == []
    ids = headings(page)
    assert ids == SECTIONS


def test_page_requests_nothing(html, page):
    for attribute in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
        values = [
            attributes[attribute] for _, attributes in page.elements if attributes.get(attribute)
        ]
        assert all(value.startswith(("data:image/", "#")) for value in values), attribute
    assert not page.all("script")
    assert not page.all("link")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_links_inside_the_page_lead_somewhere_and_no_id_is_repeated_in_conflict(page):
    ids = [
        attributes["id"]
        for tag, attributes in page.elements
        if attributes.get("id") and tag != "path"
    ]
    targets = {attributes["href"][1:] for attributes in page.all("a")}
    assert targets <= set(ids)
    assert len([i for i in ids if i in SECTIONS]) == len(SECTIONS)


def test_verdict_comes_first_with_its_interval(html, material):
    body = html[html.index("<body>") :]
    verdict = material.accuracy_metrics["verdict"]
    assert re.search(r"<h1>(.*?)</h1>", body)[1] == verdict["headline"]
    top = body[: body.index("<nav")].replace("\u00a0", " ")
    assert verdict["basis"] in top
    assert "models/generator" in top
    assert re.findall(r"(\w+)&nbsp;<strong>(.*?)</strong>", top) == [
        ("shirt", "+1.5"),
        ("coat", "+1.0"),
        ("bag", "+0.2"),
    ]
    assert body.index("<h1>") < body.index("<svg")
    assert "+1.9 to +3.4" in body[: body.index("<svg")]


def test_names_and_captions_of_the_user_are_escaped(html, page):
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(") > 3
    assert CLASSES[1] in page.text


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_its_numbers_in_the_table_and_in_the_figure(html, arm):
    value = ARMS[arm]
    assert f"{value:.1f} <span>({value - 1.1:.1f} to {value + 0.9:.1f})</span>" in html
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert f"{value:.1f}  ({value - 1.1:.1f} to {value + 0.9:.1f})" in svg


def test_every_picture_is_embedded_named_and_the_dropped_ones_are_marked(page, material):
    images = page.all("img")
    pictures = 3 * len(material.real)
    dropped = 3
    pairs = 2 * (8 + 8)
    other_looks = len(CLASSES) + 6 * 5
    assert len(images) == pictures + dropped + pairs + other_looks
    assert all(image["alt"] and image["title"] for image in images)
    marked = [image for image in images if image.get("class") == "dropped"]
    assert len(marked) == dropped
    assert "label: 0.003 < 0.01" in marked[0]["title"]


def test_a_synthetic_picture_stands_under_the_real_one_it_was_made_from(material):
    shuffled = material.synthetic[0]
    order = np.random.default_rng(0).permutation(len(shuffled))
    shuffled.index = shuffled.index.iloc[order].reset_index(drop=True)
    for group in class_examples(material):
        for position, picture in enumerate(group["synthetic"]):
            row = np.flatnonzero(material.real.labels == CLASSES.index(group["name"]))[position]
            made = shuffled.keys.index(f"{material.real.keys[row]}-r0")
            assert picture["uri"] == data_uri(shuffled.pixels(made))


def test_real_images_without_a_synthetic_one_are_shown_last(material):
    whole = material.synthetic[0]
    gone = [f"{material.real.keys[row]}-r0" for row in (0, 6, 9)]  # of the first class
    fewer = copy.copy(whole)
    fewer.index = whole.index[~whole.index["key"].isin(gone)].reset_index(drop=True)
    fewer._places = [whole._places[whole.keys.index(key)] for key in fewer.keys]
    tables = {
        name: table[~table["key"].isin(gone)]
        for name, table in vars(material).items()
        if name in ("selection", "near_copies")
    }
    other = changed(material, synthetic=[fewer, *material.synthetic[1:]], **tables)
    first = next(iter(class_examples(other)))
    assert (len(first["real"]), len(first["synthetic"])) == (SHOTS, SHOTS - 3)
    assert first["real"][0]["uri"] == data_uri(material.real.pixels(3))
    assert "Images per class" in render(other)


def test_images_are_counted_by_class(material):
    counts = material.class_counts()
    assert counts.index.tolist() == CLASSES
    assert counts["real"].tolist() == [SHOTS] * 3
    assert counts["made"].tolist() == [2 * SHOTS] * 3
    assert counts["kept"].sum() == material.selection["keep"].sum() < 6 * SHOTS


def test_what_the_pictures_were_made_from_is_told(material):
    text = " ".join("".join(Page(render(material)).text).split())
    assert "made for it, with its caption, starting from its latent; the naive" in text
    rewrite = material.settings.caption.rewrite.model_dump() | {"count": 5}
    other = with_params(material, caption__images="outputs/naive/0", caption__rewrite=rewrite)
    text = " ".join("".join(Page(render(other)).text).split())
    assert (
        "made for it, with a rewrite of its naive image's caption, starting from its latent; the "
        "naive" in text
    )
    plain = with_params(material, caption__by="none", synthesize__strength=1.0)
    assert "made for it; the naive" in " ".join("".join(Page(render(plain)).text).split())


def test_what_was_dropped_is_counted_by_reason(page):
    text = " ".join("".join(page.text).split())
    assert "27 of 30 synthetic images were kept, 3 dropped" in text
    assert "Not recognised as its class: 2" in text
    assert "Near-copy of a real training image: 1" in text


def test_cut_captions_and_prompts_are_counted_above_all_else(html):
    top = html[: html.index('id="accuracy"')]
    assert "1 of 15 captions were cut at caption.max_tokens = 16." in top
    assert "15 of 30 prompts were cut at the generator&#39;s token limit" in top


def test_cost_is_summed_and_left_out_without_a_ledger(html, material):
    assert "1 min 01 s" in html
    assert "2 min 21 s" in html  # 61.2 + 10 + 30 + 40
    assert 'images/s" class="n">2.5</td>' in html  # 25 images in 10 s
    assert 'kJ" class="n">7.5</td>' in html  # kJ
    on_gpu = 'GPU at most, MiB" class="n">'
    assert f"{on_gpu}3456</td>" in html
    assert f"{on_gpu}–</td>" in html  # of a stage on the CPU
    assert on_gpu not in render(changed(material, costs=material.costs.iloc[2:]))
    without = Page(render(changed(material, costs=material.costs.iloc[:0])))
    assert headings(without) == [name for name in SECTIONS if name != "cost"]


def test_every_parameter_is_listed(page, material):
    text = set(page.text)
    for name in (
        "adapt.dm.weight",
        "train.arms.bridged_pp.phases",
        "models.generator",
        "report.title",
    ):
        assert name in text
    assert material.settings.texts["adapt.dm.weight"] in text


def test_demonstration_models_on_other_images_are_warned_of(material):
    def warned(**values: str) -> list[str]:
        other = with_params(material, **values)
        paths = used_models(other.settings.models, other.settings.caption)
        models = [ModelSource(role, path, "", True, (), "") for role, path in paths.items()]
        texts = caveats(changed(other, models=models))
        return [text.split()[0] for text in texts if "pictures of clothes alone" in text]

    assert warned() == []
    everywhere = ["models.generator", "models.encoder", "models.captioner"]
    assert warned(data__source="photos/birds") == everywhere
    foreign = {"data__source": "photos/birds", "models__generator": "models/sd15.yaml"}
    assert warned(**foreign) == everywhere[1:]  # also under another generator
    assert warned(**foreign, caption__by="none") == everywhere[1:2]


def test_a_class_without_an_image_leaves_blanks_in_the_overview(material, tmp_path):
    images = material.synthetic[0]
    others = [
        Sample(images.keys[row], int(images.labels[row]), images.pixels(row), {})
        for row in np.flatnonzero(images.labels != 0)
    ]
    write_image_set(tmp_path / "others", others, images.class_names)
    sheet = overview(changed(material, synthetic=[ImageSet(tmp_path / "others")]))
    assert sheet.size == overview(material).size


def test_few_images_few_steps_and_heavy_dropping_are_warned_of(material):
    def texts(**fields: object) -> str:
        return "\n".join(caveats(changed(material, **fields)))

    assert "Only 15 validation images, 5 of the class t-shirt" in texts()
    few = texts(settings=with_params(material, train__steps=99, adapt__steps=10).settings)
    assert "(train.steps = 99, adapt.steps = 10)" in few
    off = with_params(material, adapt__steps=10, adapt__enabled=False)
    assert "adapt.steps" not in texts(settings=off.settings)
    assert "Selection dropped" not in texts(selection=material.selection.assign(keep=True))
    assert "no synthetic images" not in texts(selection=material.selection.assign(keep=True))
    label = material.selection["label"].iloc[0]
    name = material.real.class_names[label]
    without = material.selection.assign(keep=material.selection["label"] != label)
    assert f"There are no synthetic images of {name}:" in texts(selection=without)
    half = material.selection.assign(keep=material.selection["label"] > 0)
    assert "10 of 30 synthetic images, 1 of them as near-copies, and 100 % of the class t" in texts(
        selection=half
    )


def test_contradicting_captions_are_counted_with_what_became_of_them(material):
    def said(**numbers: object) -> str:
        summary = material.caption_summary | numbers
        return "\n".join(caveats(changed(material, caption_summary=summary)))

    counts = {"t-shirt": 1, "bag": 10, "hat": 3, "cap": 2, "sock": 2, "shoe": 4}
    assert "2 of 15 captions name another class than the label (t-shirt 2), so that" in said()
    assert "(bag 10, shoe 4, hat 3, cap 2, sock 2 and 1 more classes)" in said(by_class=counts)
    both = said(recaptioned=3, dropped=7)
    assert "of which 3 were made again with the class and 7 were left out, for prompts" in both
    assert "of which 3 were made again with the class." in said(recaptioned=3)
    assert "another class" not in said(contradicting=0)


def test_what_is_off_says_nothing_and_costs_nothing(material):
    off = {
        "caption__by": "none",
        "select__sets": [],
        "invert__enabled": False,
        "corrupt__images_per_class": 0,
    }
    rows = [f"{name}@9" for name in ("synthesize", "train", "shadow", "ood")]
    rows += ["caption", "invert", "select", "corrupt", "attack", "halves"]
    costs = pd.DataFrame({"stage": [*rows, "prepare", "train@real"]})
    stages = active_stages(with_params(material, **off).settings)
    assert costs[costs["stage"].isin(stages)]["stage"].tolist() == ["prepare", "train@real"]
    page = Page(render(with_params(material, select__sets=[])))
    assert page.open == []
    assert "selection" not in {attributes.get("id") for _, attributes in page.elements}
    assert "Membership" not in "".join(page.text)


def test_every_cell_of_a_table_names_its_column_for_phones(html):
    row = re.search(r'<tr><th scope="row">mixed</th>.*?</tr>', html, re.DOTALL)[0]
    labels = re.findall(r'data-label="([^"]*)"', row)
    assert labels[:3] == ["trained on", "test accuracy, %", "difference to real"]
    assert len(labels) == row.count("<td")


def test_class_names_with_line_breaks_and_of_any_length_are_drawn(tmp_path):
    assert contact_sheet([("two\nlines", []), ("x" * 300, [np.zeros((4, 4, 3), np.uint8)])])
    assert short("two\nlines", 26) == "two lines"


def test_a_run_without_a_verdict_still_has_a_page(material):
    metrics = json.loads(json.dumps(material.accuracy_metrics))
    metrics["verdict"] = NO_VERDICT
    metrics["accuracy"] = {"real": metrics["accuracy"]["real"]}
    metrics["difference_to_real"] = {}
    alone = with_params(
        material, train__arms={"real": {"partner": "extra", "phases": [{"on": "real"}]}}
    )
    html = render(
        changed(alone, accuracy_metrics=metrics, comparisons=material.comparisons.iloc[:0])
    )
    assert NO_VERDICT["basis"] in html
    assert "step by step" not in html
    assert Page(html).open == []


def test_what_closing_a_gap_brings_is_beside_the_gap(material):
    waterfall = [{"arm": "naive"}, {"arm": "synthetic", "closes": "content"}]
    page = render(with_params(material, report__waterfall=waterfall))
    rows = re.findall(
        r'<tr><th scope="row">(content|label|quantity)</th>(.*?)</tr>', page, re.DOTALL
    )
    plain = {gap: re.sub("</?span>", "", cells) for gap, cells in rows}
    last = {gap: re.findall(r"<td[^>]*>([^<]*)</td>", cells)[-1] for gap, cells in plain.items()}
    assert last["content"] == "+10.8 (+10.0 to +11.5)"
    assert last["label"] == last["quantity"] == "–"


def test_missing_numbers_are_dashes(material):
    measures = {
        name: dict.fromkeys(row) for name, row in material.audit_metrics["measures"].items()
    }
    gaps = {name: dict.fromkeys(row) for name, row in material.audit_metrics["gaps"].items()}
    audit = {"measures": measures, "gaps": gaps}
    per_class = material.per_class.assign(value=np.nan, low=np.nan, high=np.nan)
    html = render(changed(material, audit_metrics=audit, per_class=per_class))
    assert "nan" not in html[html.index('id="fidelity"') : html.index('id="copies"')].lower()


def test_the_same_run_gives_the_same_files(material, tmp_path):
    write_report(material, tmp_path / "one")
    write_report(material, tmp_path / "two")
    files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    names = [path.relative_to(tmp_path / "one").as_posix() for path in files]
    whole = ["DATASET.md", "accuracy.png", "pictures.png", "report.html", "summary.md"]
    runs = ["adapter", "style", *ARMS]
    assert names == sorted([*whole, *(f"losses/{run}.csv" for run in runs)])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_every_measure_and_gap_is_on_the_page_and_in_the_card(material, html, tmp_path):
    write_report(material, tmp_path)
    card = (tmp_path / "DATASET.md").read_text(encoding="utf-8")
    titles = [entry[0] for entry in MEASURES.values()] + [gap.title for gap in GAPS.values()]
    for title in titles:
        assert title in html
        assert title in card
    assert "5 synthetic images per class are worth 3.2 <span>(2.1 to 4.7)</span> real ones" in html
    assert "worth 3.2 (2.1 to 4.7) real images" in card
    for text in (
        "see `models/README.md`",
        "`synthesize.strength` | `0.9`",
        "27 are kept",
        "## Intended use",
    ):
        assert text in card


def test_other_looks_are_a_table_with_intervals_and_a_figure(html, material):
    section = re.sub("</?span>", "", html[html.index('<h2 id="ood">') : html.index('id="losses">')])
    assert "55.8 (53.8 to 57.8)" in section  # bridged_pp on the sketches
    assert "91.5 (88.0 to 95.1)" in section
    assert re.search(r'<th scope="row">naive</th>.*<td [^>]*>–</td></tr>', section)
    assert section.count("<svg") == 1
    none = {"accuracy": {}, "mean_corruption_error": {}}
    corrupted = material.ood_sets["corrupted"]
    corrupted.index, whole = corrupted.index[:0], corrupted.index
    left_out = changed(material, accuracy_metrics=material.accuracy_metrics | {"ood": none})
    assert '"ood"' not in render(left_out)
    corrupted.index = whole


def test_membership_inference_has_a_section_where_it_was_measured(material):
    measured = changed(material, membership=membership(), privacy_metrics=privacy_metrics())
    text = render(measured)
    page = Page(text)
    ids = headings(page)
    assert ids == [*SECTIONS[:6], "privacy", *SECTIONS[6:]]
    own = re.sub("</?span>", "", text[text.index('id="privacy"') : text.index('id="ood"')])
    assert own.count("not resolvable") == 2 * 3
    assert "40.0 (39.0 to 43.0)" in own
    assert "0.520 (0.510 to 0.550)" in own
    assert "Of 400 trials with non-members a single false positive is 0.25 %" in own
    assert "<svg" in own
    assert "no proof that nothing leaks" in own
    enough = changed(measured, privacy_metrics=privacy_metrics(3000))
    assert "a single false positive" not in render(enough)


def test_key_numbers_are_flat_enough_to_compare_runs(material):
    numbers = key_numbers(
        material.accuracy_metrics, material.audit_metrics, material.privacy_metrics
    )
    assert "membership" not in numbers
    leaking = key_numbers(material.accuracy_metrics, material.audit_metrics, privacy_metrics())
    assert leaking["membership"]["synthetic"] == {"auc": 0.52, "tpr_at_1_in_100": 0.02}
    assert numbers["gain"] == {"arm": "bridged_pp", "points": 2.7, "low": 1.9, "high": 3.4}
    assert numbers["accuracy"]["real"] == 73.1
    assert numbers["synthetic"]["coverage"] == 0.75
    assert numbers["ood"]["arm"] == "bridged_pp"
    assert numbers["ood"]["sketches"] == pytest.approx(55.8)
    assert numbers["ood"]["mean_corruption_error"] == 91.5


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({"partner": "extra", "phases": [{"on": "real"}]}, "all steps on the real images"),
        (
            {"partner": "extra", "phases": [{"on": "real+partner"}]},
            "all steps on the real images and the extra real images together",
        ),
        (
            {
                "partner": "synthetic",
                "phases": [
                    {"on": "partner", "share": 0.75, "mixup": 0.2},
                    {"on": "real", "share": 0.25, "reset_head": True, "lr_scale": 0.1},
                ],
            },
            "75 % of the steps on the synthetic images with mixup 0.2, then 25 % of the steps on "
            "the real images "
            "with a fresh last layer and 0.1 times the learning rate",
        ),
        (
            {
                "partner": "synthetic",
                "phases": [{"on": "real+partner", "joint": [1, 0.5], "soft_labels": 1}],
            },
            "all steps on the real images and the synthetic images together with losses weighed 1 "
            "to 0.5 "
            "and 100 % soft labels",
        ),
        (
            {
                "partner": "synthetic",
                "replicas": 1,
                "selected": False,
                "phases": [{"on": "partner"}],
            },
            "all steps on the synthetic images (the first 1 replica, before selection)",
        ),
        (
            {"partner": "partial/content", "phases": [{"on": "partner"}]},
            "all steps on the partly adapted synthetic images (set content)",
        ),
    ],
)
def test_an_arm_in_words(arm, words):
    assert describe_arm(Arm.model_validate(arm)) == words


def test_markdown_summary_has_a_row_per_arm_and_signed_differences(material):
    arms, confidence = material.settings.train.arms, material.settings.evaluate.confidence
    lines = accuracy_summary(material.accuracy_metrics, arms, confidence).splitlines()
    verdict = material.accuracy_metrics["verdict"]
    assert lines[0] == f"**{verdict['headline']}** {verdict['basis']}"
    rows = lines[4:]
    assert len(rows) == len(ARMS)
    assert rows[0] == "| `real` | all steps on the real images | 73.1 (72.0 to 74.0) |  |"
    assert rows[1].endswith("| 55.4 (54.3 to 56.3) | −17.7 (−18.5 to −17.0) |")


def test_model_sources_hash_local_weights_and_tell_pinned_from_unpinned(tmp_path):
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.safetensors").write_bytes(b"abc")
    (tmp_path / "pinned.yaml").write_text("hub: owner/name\nrevision: 0123abc\n")
    (tmp_path / "loose.yaml").write_text("hub: owner/name\nrevision: null\n")
    paths = {
        "generator": folder,
        "encoder": tmp_path / "pinned.yaml",
        "captioner": tmp_path / "loose.yaml",
    }
    local, pinned, loose = model_sources({role: str(path) for role, path in paths.items()})
    (tmp_path / "captions.csv").write_bytes(b"abc")
    (table,) = model_sources({"captioner": str(tmp_path / "captions.csv")})
    digest = (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-4
    )
    assert local.weights == (("unet/weights.safetensors", digest),)
    assert table.weights == (("captions.csv", digest),)
    assert (local.pinned, pinned.pinned, loose.pinned) == (True, True, False)
    assert pinned.origin == "owner/name at 0123abc"


def test_models_that_are_not_pinned_are_warned_of(material):
    sources = [
        ModelSource(role, f"{role}.yaml", "owner/name", pinned, (), "")
        for role, pinned in (("generator", True), ("captioner", False), ("classifier", False))
    ]
    texts = [text for text in caveats(changed(material, models=sources)) if "pinned" in text]
    assert len(texts) == 1  # the classifier starts from scratch
    assert "models.captioner (captioner.yaml)" in texts[0]


def test_a_verdict_on_a_round_says_that_its_images_were_not_audited(material):
    metrics = material.accuracy_metrics
    arms = dict(material.settings.train.arms)
    arms["mixed"] = arms["mixed"].model_copy(update={"partner": "rounds/first"})
    train = material.settings.train.model_copy(update={"arms": arms})
    own = changed(
        material,
        settings=replace(material.settings, train=train),
        accuracy_metrics=metrics | {"verdict": metrics["verdict"] | {"arm": "mixed"}},
    )
    assert any("neither selected nor audited" in text for text in caveats(own))
    assert not any("neither selected nor audited" in text for text in caveats(material))


def test_near_ties_and_a_class_that_carries_the_verdict_are_warned_of(material):
    metrics = material.accuracy_metrics
    verdict = metrics["verdict"] | {"near_ties": ["mixed", "bridged"], "carried_by": "shirt"}
    texts = caveats(changed(material, accuracy_metrics=metrics | {"verdict": verdict}))
    assert any("mixed and bridged are within a standard error of bridged_pp" in t for t in texts)
    assert any("shirt, supplies most" in t and "+1.2 of +2.7 points" in t for t in texts)


def test_models_without_work_are_not_reported():
    params = load_params(ROOT / "recipes/default.yaml")
    paths, caption = params.models.model_dump(exclude={"dtype", "compile"}), params.caption
    assert list(used_models(paths, caption)) == ["generator", "encoder", "captioner", "classifier"]
    rewrite = caption.rewrite.model_copy(update={"count": 5})
    rewritten = caption.model_copy(update={"rewrite": rewrite})
    assert used_models(paths, rewritten)["rewriter"] == params.models.rewriter
    assert "captioner" not in used_models(paths, caption.model_copy(update={"by": "none"}))


def test_templates_are_shipped_with_the_package():
    names = {path.name for path in (Path(figures.__file__).parent / "templates").iterdir()}
    assert {"report.html.j2", "summary.md.j2", "DATASET.md.j2", "style.css"} <= names
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packages["package-data"]["truelike.reporting"] == ["templates/*"]
