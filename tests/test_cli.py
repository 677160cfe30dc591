"""The `truelike` command as a person uses it."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

import truelike as truelike_package
from truelike import cli
from truelike.config import Params, load_params
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, encode_png, write_image_set
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent


def truelike(*words: object) -> str:
    """What a successful command prints; a TruelikeError is raised."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(tmp_path / "recipes/default.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_set(folder: Path, suffix: str = "") -> ImageSet:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(6)]
    samples = [Sample(f"k{n}{suffix}", int(n > 1), image) for n, image in enumerate(images)]
    write_image_set(folder, samples, ["hat", "a/b: c"])
    return ImageSet(folder)


def failure(monkeypatch, capsys, *words: object) -> str:
    """What a failing command prints to stderr."""
    monkeypatch.setattr(sys, "argv", ["truelike", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_help_names_every_command():
    text = truelike("--help")
    assert all(
        re.search(rf"\b{command} ", text)
        for command in ("use", "check", "peek", "verify", "export", "trace", "regenerate")
    )


def test_the_command_line_imports_nothing_heavy():
    slow = ("torch", "pandas", "pyarrow", "pydantic")
    code = f"import sys, truelike.cli; print([m for m in {slow} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_the_demo_recipe_is_the_demo(project):
    before = (project / "params.yaml").read_bytes()
    assert "in force: fashion; no parameters changed" in truelike("use", "fashion")
    assert (project / "params.yaml").read_bytes() == before


def test_a_recipe_changes_values_and_keeps_the_rest(project):
    before = (project / "params.yaml").read_text()
    output = truelike("use", "sd15", "real-fake")
    assert "data.resolution: 32 -> 512\n" in output
    assert "data.shots: 16 -> null\n" in output
    assert "no longer in force: fashion\n" in output
    after = (project / "params.yaml").read_text()
    assert "# Recipes in force: sd15 real-fake\n" in after
    comments = [
        [line.partition("#")[2] for line in text.splitlines() if "in force" not in line]
        for text in (before, after)
    ]
    assert comments[0] == comments[1]
    params = load_params()
    assert (params.data.resolution, params.synthesize.strength, params.adapt.lr) == (
        512,
        0.75,
        1e-4,
    )
    truelike("use", "fashion")
    assert (project / "params.yaml").read_text() == before


def test_edits_that_stay_are_shown(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("shots: 16", "shots: 4"))
    assert "data.shots: your edit stays: 4 in place of 16\n" in truelike("use", "sd15")
    assert "data.shots: 4 -> null\n" in truelike("use", "sd15", "real-fake")


def test_model_pointers_of_recipes_exist():
    for path in (ROOT / "recipes").glob("*.yaml"):
        for name, model in read_yaml(path).get("models", {}).items():
            assert name in ("dtype", "compile") or (ROOT / model).exists(), f"{path}: models.{name}"


def test_own_recipe_by_path_with_a_list_and_a_null(project):
    Path("mine.yaml").write_text("data: {shots: null}\nsynthesize:\n  replicas: [0, 7]\n")
    output = truelike("use", "mine.yaml")
    assert "data.shots: 16 -> null" in output
    assert "# Recipes in force: mine.yaml\n" in (project / "params.yaml").read_text()
    params = load_params()
    assert (params.data.shots, params.synthesize.replicas) == (None, (0, 7))
    assert "shots: null " in (project / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("adapt: {learning_rate: 1}", "unknown parameter 'adapt.learning_rate'"),
        ("adapt: {rnak: 4}", "did you mean 'rank'?"),
        ("data: {square: round}", "data.square"),
        ("- a list", "must hold sections"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_changes_nothing(project, monkeypatch, capsys, recipe, message):
    before = (project / "params.yaml").read_bytes()
    Path("wrong.yaml").write_text(recipe)
    assert message in failure(monkeypatch, capsys, "use", "wrong.yaml")
    assert (project / "params.yaml").read_bytes() == before


def test_an_unknown_recipe_lists_the_known(project, monkeypatch, capsys):
    assert re.search(
        r"nothing: no such recipe.*fashion, .*sd15, .*sdxl",
        failure(monkeypatch, capsys, "use", "nothing"),
    )


def test_peek_counts_and_draws(tmp_path):
    some_set(tmp_path / "sets/0")
    some_set(tmp_path / "sets/10", "-r10")
    some_set(tmp_path / "sets/2", "-r2")
    output = truelike("peek", tmp_path / "sets", "--out", tmp_path / "new/sheet.png")
    lines = output.splitlines()
    assert [Path(word).name for word in lines[0].split()] == ["0", "2", "10"]
    assert re.search(r"a/b: c +4 +4 +4", output)
    assert re.search(r"all +6 +6 +6", output)
    assert Image.open(tmp_path / "new/sheet.png").width > 4 * 64


def test_browse_finds_the_selection_and_the_real_images_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some_set(Path("outputs/real/train"))
    pixels = np.zeros((4, 4, 3), np.uint8)
    made = [Sample(f"k{n}-r0", 0, pixels, {"source_key": f"k{n}", "prompt": "x"}) for n in (0, 1)]
    write_image_set(Path("outputs/synthetic/0"), made, ["hat", "a/b: c"])
    Path("outputs/selection").mkdir()
    table = pd.DataFrame({"key": ["k0-r0", "k1-r0"], "keep": [True, False], "reason": ["", "why"]})
    table.to_parquet("outputs/selection/synthetic.parquet")
    assert "2 images: .work/gallery/index.html" in truelike("browse", "outputs/synthetic")
    page = Path(".work/gallery/index.html").read_text()
    data = json.loads(re.search(r"const data = (.*);", page)[1])
    assert (data["reasons"], data["sources"]) == (["", "why"], [0, 1])
    truelike("browse", "outputs/synthetic")  # its own folder is written anew


@pytest.mark.parametrize("out", ["sheet", "sheet.xyz", "folder.png"])
def test_peek_refuses_what_is_no_picture_before_it_works(tmp_path, monkeypatch, capsys, out):
    (tmp_path / "folder.png").mkdir()
    message = failure(monkeypatch, capsys, "peek", tmp_path / "no-set", "--out", tmp_path / out)
    assert f"{out}: must be a file that ends in .png" in message


def test_verify(tmp_path, monkeypatch, capsys):
    some_set(tmp_path / "sets/0")
    some_set(tmp_path / "sets/1")
    assert truelike("verify", tmp_path / "sets").count("6 images, all sound") == 2
    shard = tmp_path / "sets/1/shard-00000.tar"
    data = bytearray(shard.read_bytes())
    row = ImageSet(tmp_path / "sets/1").index.iloc[3]
    data[int(row["offset"]) + 40] ^= 1
    shard.write_bytes(data)
    assert "image 'k3' does not match its sha256" in failure(
        monkeypatch, capsys, "verify", tmp_path / "sets"
    )
    assert "no image set here" in failure(monkeypatch, capsys, "verify", tmp_path / "elsewhere")


def test_discarding_a_stray_file_or_link_leaves_the_sums(tmp_path, monkeypatch, capsys):
    folder = some_set(tmp_path / "set").folder
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "latest").symlink_to(tmp_path / "nowhere")
    (folder / "up").symlink_to(tmp_path)
    assert "3 problems" in failure(monkeypatch, capsys, "verify", "--discard", folder)
    assert "6 images, all sound" in truelike("verify", folder)


def test_export(tmp_path, monkeypatch, capsys):
    images = some_set(tmp_path / "set")
    assert "6 images" in truelike("export", tmp_path / "set", tmp_path / "folder")
    found = {
        path.relative_to(tmp_path / "folder").as_posix()
        for path in (tmp_path / "folder").rglob("*.png")
    }
    assert found == {f"{'hat' if n < 2 else 'a%2Fb%3A c'}/k{n}.png" for n in range(6)}
    assert (tmp_path / "folder/hat/k0.png").read_bytes() == images.png(0)
    assert "already holds something" in failure(
        monkeypatch, capsys, "export", tmp_path / "set", tmp_path / "folder"
    )
    assert "export beside it" in failure(
        monkeypatch, capsys, "export", tmp_path / "set", tmp_path / "set/folder"
    )
    assert not (tmp_path / "set/folder").exists()


def test_trace_lists_every_image_made_from_one_in_all_sets(tmp_path, monkeypatch, capsys):
    pixels = np.zeros((4, 4, 3), np.uint8)
    real = [
        Sample(f"boot-{n}", n % 2, pixels, {"split": "train", "source": f"boots/{n}.png"})
        for n in range(2)
    ]
    write_image_set(tmp_path / "outputs/real/train", real, ["hat", "boot"])
    for place in ("naive/0", "synthetic/0", "synthetic/1"):
        replica = place[-1]
        made = [
            Sample(
                f"boot-{n}-r{replica}",
                n % 2,
                pixels,
                {
                    "source_key": f"boot-{n}",
                    "caption_key": "boot-1/3" if (n, place) == (0, "synthetic/1") else "",
                },
            )
            for n in range(2)
        ]
        write_image_set(tmp_path / "outputs" / place, made, ["hat", "boot"])
    monkeypatch.chdir(tmp_path)
    lines = [
        "outputs/naive/0: boot-1-r0, made from boot-1",
        "outputs/real/train: boot-1",
        "outputs/synthetic/0: boot-1-r0, made from boot-1",
        "outputs/synthetic/1: boot-0-r1, made from boot-0",  # with a rewrite of its caption
        "outputs/synthetic/1: boot-1-r1, made from boot-1",
    ]
    for name in ("boot-1", "boots/1.png"):
        output = truelike("trace", name).splitlines()
        assert output[:-1] == lines
        assert (
            "4 images were made from it; to leave it out of all, put it in data.exclude"
            in output[-1]
        )
    output = truelike("trace", "boot-1-r1").splitlines()
    assert output[0] == "outputs/synthetic/1: boot-1-r1, made from boot-1"
    assert "a synthetic image, made from the real image boot-1" in output[-1]
    shutil.rmtree("outputs/real")  # excluded long ago: what was made before is still found
    assert len(truelike("trace", "boot-1").splitlines()) == 5
    assert "boot-7: no image of" in failure(monkeypatch, capsys, "trace", "boot-7")


def test_regenerate_compares_with_the_stored_bytes(tmp_path, monkeypatch, capsys):
    images = some_set(tmp_path / "set")
    monkeypatch.setattr(
        "truelike.synthesis.regenerate.regenerate", lambda job, folder, key: images.pixels(2)
    )
    output = truelike("regenerate", tmp_path / "set", "k2", "--out", tmp_path / "again.png")
    assert "the same bytes as stored" in output
    assert (tmp_path / "again.png").read_bytes() == encode_png(images.pixels(2))
    assert "differs from the stored image" in failure(
        monkeypatch, capsys, "regenerate", tmp_path / "set", "k3"
    )


def test_the_shipped_settings_are_valid_and_plain_yaml():
    shipped = YAML(typ="safe").load(ROOT / "recipes/default.yaml")
    assert shipped.keys() == Params.model_fields.keys()


def test_the_version_is_written_once(monkeypatch):
    assert truelike("--version") == f"truelike {truelike_package.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "truelike.__version__"


def test_check_names_what_is_not_there(project, monkeypatch, capsys):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("models/encoder", "models/encodr"))
    for name in ("models", "data"):
        (project / name).symlink_to(ROOT / name)
    assert failure(monkeypatch, capsys, "check") == (
        "truelike: models.encoder: no such file or directory: models/encodr\n"
    )
    (project / "params.yaml").write_text(text)
    assert "every parameter is valid" in truelike("check")
    (project / "params.yaml").write_text(text.replace("shots: 16", "shots: many"))
    assert "params.yaml: data.shots: " in failure(monkeypatch, capsys, "check")
    (project / "params.yaml").write_text(text.replace("resolution: 32", "resolution: 33"))
    assert "data.resolution: images are 33 x 33" in failure(monkeypatch, capsys, "check")
    (project / "params.yaml").write_text(
        text.replace("tokens_per_style: 1", "tokens_per_style: 99")
    )
    assert "the generator's tokenizer cuts after" in failure(monkeypatch, capsys, "check")
