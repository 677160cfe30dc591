"""The report, and the comparison of runs, in a real browser: no request, an empty console,
everything shown.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import open_browser
from tests.support.report_material import build_material, run_of
from truelike.reporting.compare import compare_page
from truelike.reporting.page import render

PHONE = {"width": 390, "height": 844}
SIZES = """() => [...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect(), drawn = svg.getBBox();
  const sides = [box.width, box.height, drawn.width, drawn.height];
  return {label: figure.getAttribute('aria-label'), sides};
})"""
COLOURS = (
    """() => ['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"""
)
OPEN = "() => document.querySelectorAll('details').forEach(details => { details.open = true; })"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module", params=["report", "comparison"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / f"{request.param}.html"
    runs = [run_of("first", x="1"), run_of("second", x="2")]
    page = render(build_material(folder)) if request.param == "report" else compare_page(runs)
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture
def page(browser, report) -> Iterator:
    """The page on a desktop, everything unfolded; `page.asked` and `page.said` have its requests
    and messages.
    """
    opened = browser.new_page()
    opened.asked, opened.said = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.goto(report.as_uri())
    opened.evaluate(OPEN)
    yield opened
    opened.close()


def test_the_page_asks_for_nothing_and_the_console_stays_empty(page, report):
    page.wait_for_load_state("networkidle")
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.said == []


def test_every_figure_and_every_picture_has_a_size(page, report):
    figures = page.evaluate(SIZES)
    fewest, pictures_at_least = (10, 50) if report.stem == "report" else (1, 0)
    assert len(figures) == len(re.findall(r"<figure", report.read_text())) >= fewest
    assert all(min(figure["sides"]) > 20 for figure in figures), figures
    assert len({figure["label"] for figure in figures}) == len(figures)
    pictures = page.evaluate(
        "() => [...document.images].map(image => [image.complete, image.naturalWidth])"
    )
    assert len(pictures) >= pictures_at_least
    assert all(complete and width > 0 for complete, width in pictures)


def test_no_text_of_a_figure_is_cut_off(page):
    cut = page.evaluate("""() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
      const outer = svg.getBoundingClientRect();
      return [...svg.querySelectorAll('text')].filter(text => {
        const box = text.getBoundingClientRect();
        const wide = box.left < outer.left - 2 || box.right > outer.right + 2;
        return wide || box.bottom > outer.bottom + 2;
      }).map(text => text.textContent);
    })""")
    assert cut == []


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size(PHONE)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("() => getComputedStyle(document.body).fontSize") == "16px"


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(...)`` (WCAG 2)."""
    values = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(
        weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_page_and_figures_can_be_read_in_both_themes(page, scheme, dark):
    page.emulate_media(color_scheme=scheme)
    ink, paper = map(luminance, page.evaluate(COLOURS))
    assert (paper < ink) == dark
    fills = page.evaluate(
        """() => [...document.querySelectorAll('figure svg text')]
        .map(t => getComputedStyle(t).fill)"""
    )
    for text in {ink, *map(luminance, fills)}:
        assert (max(text, paper) + 0.05) / (min(text, paper) + 0.05) >= 4.5  # WCAG 2, level AA


def test_the_page_prints_on_white_without_its_menu(page, report):
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(COLOURS)[1] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    assert not page.locator("nav").is_visible()
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 4 < pages < 40 if report.stem == "report" else 0 < pages < 10
