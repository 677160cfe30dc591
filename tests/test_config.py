"""Parameters arrive typed and checked, and errors name the parameter and the nearest valid one."""

import copy
from pathlib import Path

import pytest

from truelike.config import load_params, parse_params
from truelike.runtime.errors import TruelikeError
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = read_yaml(ROOT / "recipes/default.yaml")


def changed(dotted: str, value: object) -> dict:
    raw = copy.deepcopy(DEFAULTS)
    *path, last = dotted.split(".")
    section = raw
    for part in path:
        section = section[part]
    section[last] = value
    return raw


@pytest.mark.parametrize("text", ["5e-5", "5.0e-05", 5e-5])
def test_numbers_written_as_words_become_numbers(text):
    lr = parse_params(changed("adapt.lr", text)).adapt.lr
    assert isinstance(lr, float)
    assert lr == 5e-5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("adapt.lrr", 1, r"unknown parameter 'adapt\.lrr'; did you mean 'lr'\?"),
        ("adapts", {}, r"unknown parameter 'adapts'; did you mean 'adapt'\?"),
        ("adapt.dm.wieght", 1, r"unknown parameter 'adapt\.dm\.wieght'; did you mean 'weight'\?"),
        (
            "train.arms.real.phase",
            [],
            r"unknown parameter 'train\.arms\.real\.phase'; did you mean 'phases'\?",
        ),
        (
            "partial",
            {"a": {"witout": []}},
            r"unknown parameter 'partial\.a\.witout'; did you mean 'without'\?",
        ),
        ("partial", {"a": {"without": ["style"]}}, r"partial\.a: .*there can be no adapter either"),
        (
            "train.arms.naive.partner",
            "partial/content",
            r"train\.arms\.naive: there is no 'content' in partial",
        ),
        (
            "train.arms.naive.partner",
            "outputs/real/test",
            r"train\.arms\.naive\.partner: .*found 'outputs/real/test'",
        ),
        ("data.zzz", 1, r"unknown parameter 'data\.zzz'; known here: source, config"),
        ("adapt.lr", "fast", r"adapt\.lr: .*found 'fast'"),
        ("adapt.lr", -1, r"adapt\.lr: .*greater than 0, found -1"),
        ("adapt.lr", float("nan"), r"adapt\.lr: .*finite number"),
        ("data.shots", 2.5, r"data\.shots: .*found 2\.5"),
        ("synthesize.strength", 0, r"synthesize\.strength: .*found 0"),
        ("synthesize.replicas", [1, 1], r"synthesize\.replicas: .*distinct"),
        ("data.square", "round", r"data\.square: .*'crop', 'pad' or 'stretch', found 'round'"),
        ("prompts.base", "a photo", r"prompts\.base must contain \{class\}"),
        ("prompts.definitions", ["a"], r"prompts\.definitions: .*found \['a'\]"),
        ("caption.images", "outputs/real/test", r"caption\.images: .*found 'outputs/real/test'"),
        (
            "caption.images",
            "outputs/synthetic/0",
            r"caption\.images: .*found 'outputs/synthetic/0'",
        ),
        (
            "caption.rewrite.instruction",
            "again",
            r"caption\.rewrite\.instruction: must contain \{caption\}",
        ),
        ("prompts.style", "", r"invert\.enabled is true but prompts\.style is empty"),
        ("train.arms", {}, r"train\.arms: must contain the arm 'real'"),
        ("train.arms", ["real"], r"train\.arms: must be a mapping .*found \['real'\]"),
        (
            "ood",
            None,
            r"ood: must be a mapping such as \{NAME: \.\.\.\}, \{\} for none, found None",
        ),
        ("ood", ["a"], r"ood: must be a mapping .*found \['a'\]"),
        ("ood", {"a": "data/a"}, r"ood\.a: must be a section .*found 'data/a'"),
        ("ood", {"a": {"source": "b", "classes": []}}, r"ood\.a\.classes: must not be empty"),
        ("partial", [], r"partial: must be a mapping .*found \[\]"),
        ("data", None, r"data: must be a section with parameters below it, found None"),
        ("data.source", None, r"data\.source: .*string, found None"),
        ("data.source", ["a"], r"data\.source: .*string, found \['a'\]"),
        ("data.source", "", r"data\.source: must not be empty"),
        ("models.generator", "", r"models\.generator: must not be empty"),
        ("synthesize.replicas", 3, r"synthesize\.replicas: must be a list .*found 3"),
        ("synthesize.replicas", [], r"synthesize\.replicas: .*distinct numbers .*found \[\]"),
        ("train.seeds", [], r"train\.seeds: must be a list of distinct numbers .*found \[\]"),
        ("train.seeds", [1, 1], r"train\.seeds: must be a list of distinct numbers"),
        ("train.batch_size", 1, r"train\.batch_size: .*greater than or equal to 2, found 1"),
        ("evaluate.bootstrap", 99, r"evaluate\.bootstrap: .*equal to 100, found 99"),
        ("audit.bootstrap", 1, r"audit\.bootstrap: .*equal to 100, found 1"),
        ("privacy.bootstrap", 1, r"privacy\.bootstrap: .*equal to 100, found 1"),
        ("invert.token", "", r"invert\.token: .*found ''"),
        ("invert.token", "two words", r"invert\.token: .*found 'two words'"),
        ("invert.initializer", "", r"invert\.initializer: must not be empty"),
        ("corrupt.kinds", ["noise", "noise"], r"corrupt\.kinds: must be distinct"),
        (
            "privacy.shadows",
            [0, 1, 2, 3],
            r"privacy\.shadows: must be \[\] or three pairs.*found \[0, 1, 2, 3\]",
        ),
        ("privacy.shadows", [0, 1, 2, 3, 4, 6], r"privacy\.shadows: must be \[\] or three pairs"),
        ("adapt.seed", 2**32, r"adapt\.seed: .*less than 4294967296, found 4294967296"),
        ("train.seeds", [0, 2**32], r"train\.seeds\.1: .*less than 4294967296"),
        (
            "caption.images",
            "outputs/naive/9",
            r"caption\.images: outputs/naive/9 is not made, .* \[0, 1, 2, 3, 4, 5\]",
        ),
        ("report.waterfall", [{"arm": "real"}], r"report\.waterfall: .*found \['real'\]"),
        (
            "report.waterfall",
            [{"arm": "naive"}, {"arm": "naive"}],
            r"report\.waterfall: must name arms other than real, each once",
        ),
        (
            "train.arms.real.phases",
            [{"on": "real", "share": 0.5}],
            r"train\.arms\.real: .*add up to 1, found 0\.5",
        ),
    ],
)
def test_errors_name_the_parameter(name, value, message):
    with pytest.raises(TruelikeError, match=message):
        parse_params(changed(name, value))


@pytest.mark.parametrize(
    "name",
    [
        "my arm",
        "a/b",
        "x;touch F",
        "..",
        ".",
        "",
        "-rf",
        "mixup_0.2",
        "größe",
        "A",
        "a\n",
        "a" * 61,
    ],
)
def test_names_that_a_shell_dvc_or_a_file_system_cannot_take_are_refused(name):
    real = DEFAULTS["train"]["arms"]["real"]
    for section, entries in (
        ("train.arms", {"real": real, name: real}),
        ("ood", {name: {"source": "data/catalogue"}}),
        ("partial", {name: {"without": ["prior"]}}),
    ):
        with pytest.raises(TruelikeError) as error:
            parse_params(changed(section, entries))
        place = f"params.yaml: {section}.{name}: a name of a stage and a folder: up to 60 of a-z"
        assert str(error.value).startswith(place)
        assert str(error.value).endswith(f"found {name!r}")


def test_attacked_arms_are_not_none():
    raw = changed("privacy.arms", [])
    assert parse_params(raw).privacy.arms == ()
    raw["privacy"]["shadows"] = [0, 1, 2, 3, 4, 5]
    with pytest.raises(TruelikeError, match=r"privacy\.arms: there are shadows but no arm"):
        parse_params(raw)


@pytest.mark.parametrize("shots", [0, "many", 1.5, {"boot": 0}, {"boot": "few"}, [3]])
def test_shots_are_a_number_or_one_for_each_class(shots):
    with pytest.raises(TruelikeError, match=r"data\.shots: must be a number above 0, a number for"):
        parse_params(changed("data.shots", shots))
    for fine in (3, "3", None, {"boot": 3, "bag": None}):
        assert parse_params(changed("data.shots", fine))


def test_feedback_needs_a_network_that_validation_did_not_choose():
    raw = changed("synthesize.feedback.criterion", "entropy")
    raw["synthesize"]["feedback"]["network"] = "outputs/train/real/networks"
    for keep in ("best", "none"):
        raw["train"]["keep"] = keep
        with pytest.raises(
            TruelikeError, match=r"feedback\.network: needs train\.keep 'all', found"
        ):
            parse_params(raw)
    raw["train"]["keep"] = "all"
    assert parse_params(raw).synthesize.feedback.is_on
    raw["privacy"]["shadows"] = [0, 1, 2, 3, 4, 5]
    with pytest.raises(TruelikeError, match=r"network has seen the images that the shadows"):
        parse_params(raw)
    raw["privacy"]["shadows"] = []
    raw["synthesize"]["feedback"]["network"] = "outputs/train/more_real/networks"
    with pytest.raises(TruelikeError, match=r"arm 'more_real' trains on real images beyond"):
        parse_params(raw)
    raw["synthesize"]["feedback"]["network"] = "models/backbone"  # of the user's own
    raw["train"]["keep"] = "best"
    assert parse_params(raw)


def test_captions_that_no_model_makes_have_no_synthetic_images_and_no_rewrites():
    raw = changed("caption.images", "outputs/naive/3")
    assert parse_params(raw).caption.images == "outputs/naive/3"
    raw["caption"]["by"] = "file"
    with pytest.raises(TruelikeError, match=r"caption: by 'file' does not look at images"):
        parse_params(raw)
    raw = changed("caption.rewrite.count", 5)
    raw["caption"]["by"] = "none"
    with pytest.raises(
        TruelikeError, match=r"caption: by 'none' leaves nothing to rewrite: .*found 5"
    ):
        parse_params(raw)


def test_what_is_told_to_a_captioner_needs_one_and_is_told_once():
    raw = changed("caption.contradicting", "recaption")
    for by in ("model", "none"):
        raw["caption"]["by"] = by
        assert parse_params(raw)
    raw["caption"]["by"] = "file"
    with pytest.raises(TruelikeError, match=r"by 'file' asks no captioner: set contradicting"):
        parse_params(raw)
    raw["caption"] |= {"instruction": "what is behind it?", "contradicting": "keep"}
    with pytest.raises(TruelikeError, match=r"by 'file' asks no captioner: set instruction"):
        parse_params(raw)
    raw["caption"] |= {"by": "model", "contradicting": "recaption"}
    assert parse_params(raw)
    raw["caption"]["instruction"] = "a {class}"
    with pytest.raises(TruelikeError, match=r"take \{class\} out of it, or set contradicting to"):
        parse_params(raw)


def test_attacked_arms_are_on_real_and_synthetic_images():
    raw = changed("privacy.arms", ["naive"])
    assert parse_params(raw).privacy.shadows == ()
    raw["privacy"]["shadows"] = [0, 1, 2, 3, 4, 5]
    with pytest.raises(
        TruelikeError,
        match=r"privacy\.arms: 'naive' is no arm .* choose from \['real', 'synthetic', ",
    ):
        parse_params(raw)
    raw["privacy"]["arms"] = ["real", "bridged"]
    assert parse_params(raw).privacy.arms == ("real", "bridged")


def test_missing_parameters_and_several_errors_at_once():
    raw = changed("adapt.lr", "fast")
    del raw["data"]["seed"]
    with pytest.raises(TruelikeError, match=r"(?s)parameter 'data\.seed' is missing.*adapt\.lr"):
        parse_params(raw)


def test_files_that_are_no_parameters(tmp_path):
    with pytest.raises(TruelikeError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("data: [")
    with pytest.raises(TruelikeError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes("data: größe".encode("latin-1"))
    with pytest.raises(TruelikeError, match="is not UTF-8"):
        load_params(tmp_path / "params.yaml")


def test_parameters_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_params(ROOT / "recipes/default.yaml").adapt.lr = 1.0
