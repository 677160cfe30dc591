"""The README and docs against the project: the result is the committed one, parameters and links
exist.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from truelike.config import Params, load_params
from truelike.reporting.summary import accuracy_summary
from truelike.runtime.yaml import read_yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULT = re.compile(r"<!-- result: .*? -->\n(.*?)<!-- end of result -->", re.DOTALL)


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout


def committed(path: str, commit: str = "HEAD") -> str:
    """A file as committed: a run of the pipeline may have changed the one in the working tree."""
    return git("show", f"{commit}:{path}")


def test_shipped_settings_were_committed_together_with_the_same_params_file():
    shipped = "recipes/default.yaml"
    commit = git("log", "-1", "--format=%H", "--", shipped).strip()
    assert committed("params.yaml", commit) == committed(shipped, commit)


def test_readme_shows_the_committed_result():
    params = load_params(ROOT / "recipes/default.yaml")
    metrics = json.loads(committed("metrics/accuracy.json"))
    expected = accuracy_summary(metrics, params.train.arms, params.evaluate.confidence)
    assert RESULT.search(committed("README.md"))[1].strip() == expected.strip(), (
        "paste the expected text into README.md"
    )


def test_readme_has_the_gains_over_draws_of_the_results_page():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    sections = {}
    for part in page.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        sections[title.lower().replace(" ", "-")] = text.split("In % validation")[0]
    gains = re.compile(r"`(\w+)` ([+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\])")
    checked = []
    for paragraph in (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n"):
        if found := gains.findall(" ".join(paragraph.split())):
            (anchor,) = re.findall(r"docs/results\.md#([\w-]+)", paragraph)
            for arm, gain in found:
                row = rf"^\| `{arm}` \| [\d.]+, {re.escape(gain)} \|$"
                assert re.search(row, sections[anchor], re.MULTILINE), (anchor, arm, gain)
            checked.append(anchor)
    assert "the-demo-in-five-draws" in checked


NAMED_BY_THE_USER = ("ood", "train.arms", "prompts.definitions")


def parameters(model: dict, prefix: str = "") -> set[str]:
    names = set()
    for name, value in model.items():
        dotted = f"{prefix}{name}"
        whole = dotted in NAMED_BY_THE_USER or not isinstance(value, dict)
        names |= {dotted} if whole else parameters(value, f"{dotted}.")
    return names


def test_every_parameter_is_documented_and_no_other():
    params = load_params(ROOT / "recipes/default.yaml").model_dump()
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == parameters(params)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_parameter_that_is_mentioned_exists(page):
    text = page.read_text(encoding="utf-8")
    sections = "|".join(Params.model_fields)
    known = parameters(load_params(ROOT / "recipes/default.yaml").model_dump())
    mentioned = re.findall(rf"(?<![\w/.])(?:{sections})\.[a-z_]+(?:\.[a-z_]+)*", text)
    files = ("md", "yaml", "html", "parquet")
    for name in mentioned:
        assert (
            name in known
            or name.rsplit(".")[-1] in files
            or any(k.startswith(f"{name}.") for k in known)
        ), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_truelike_and_make_exist(page):
    from typer.main import get_command

    from truelike.cli import app

    text = page.read_text(encoding="utf-8")
    known = set(get_command(app).commands)
    assert set(re.findall(r"(?:^|`|&& )truelike ([a-z]+)", text, re.MULTILINE)) <= known
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"(?:^|`|&& )make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_stages_in_the_readme_are_those_of_the_pipeline():
    stages = list(read_yaml(ROOT / "dvc.yaml")["stages"])
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The pipeline")[1]
    rows = re.findall(r"^\| ([a-z, ]+) \| (?!does)", section, re.MULTILINE)
    assert [name for row in rows for name in row.split(", ")] == stages
