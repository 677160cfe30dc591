"""The gallery of 10,000 images in a real browser: it loads what is looked at, filters, searches."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.browser import open_browser
from truelike.imageset.reading import ImageSet
from truelike.imageset.writing import Sample, write_image_set
from truelike.reporting.gallery import BLOCK, Exhibit, write_gallery
from truelike.runtime.errors import TruelikeError

CLASSES = ["cat", "</script><b>dog\n"]
COUNT = 10_000


def write_set(folder: Path, count: int, replica: int | None) -> ImageSet:
    pixels = np.zeros((4, 4, 3), np.uint8)
    samples = []
    for n in range(count):
        made = {"source_key": f"k{n % 10}", "prompt": f"photo {n} of </script>", "seed": 2**62 + n}
        columns = {"source": f"{n}.png"} if replica is None else made | {"replica": replica}
        key = f"k{n}" if replica is None else f"k{n}-r{replica}"
        samples.append(Sample(key, n % 2, pixels + n % 256, columns))
    write_image_set(folder, samples, CLASSES)
    return ImageSet(folder)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    sets = [write_set(folder / f"synthetic/{r}", COUNT // 2, r) for r in (0, 1)]
    real = write_set(folder / "real", 10, None)
    selection = pd.DataFrame({"key": [*sets[0].keys, *sets[1].keys], "keep": True, "reason": ""})
    selection.loc[3, ["keep", "reason"]] = [False, "label: 0.001 < 0.01"]
    exhibits = [Exhibit(images, selection) for images in sets]
    return write_gallery(exhibits, [real], {"k3": "a <i>cat</i>"}, folder / "out")


@pytest.fixture(scope="module")
def page(gallery: Path) -> Iterator:
    with open_browser() as browser:
        opened = browser.new_page(viewport={"width": 1000, "height": 800})
        opened.asked, opened.said = [], []
        opened.on("request", lambda request: opened.asked.append(request.url))
        opened.on("console", lambda message: opened.said.append(message.text))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.goto(gallery.as_uri(), timeout=120_000)
        yield opened


def blocks(page) -> set[str]:
    return {url.rpartition("/")[2] for url in page.asked if url.endswith(".js")}


def shown(page) -> list[int]:
    cells = page.locator("#grid button")
    return sorted(int(number) for number in cells.evaluate_all("c => c.map(b => b.dataset.number)"))


def test_only_what_is_looked_at_is_loaded(page, gallery):
    assert page.inner_text("#count") == "10000 of 10000 images"
    page.wait_for_function("() => [...document.querySelectorAll('#grid img')].every(i => i.src)")
    assert blocks(page) == {"0.js"}
    assert len(shown(page)) < BLOCK
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(
        f"() => document.querySelector('[data-number=\"{COUNT - 1}\"] img')?.src"
    )
    assert blocks(page) <= {"0.js", f"{COUNT // BLOCK - 1}.js", f"{COUNT // BLOCK - 2}.js"}
    assert len(shown(page)) < BLOCK
    assert len(list((gallery.parent / "blocks").iterdir())) == COUNT // BLOCK + 1
    page.evaluate("() => window.scrollTo(0, 0)")


def test_filters_and_search_choose_together(page):
    page.select_option("#class", "1")
    assert page.inner_text("#count") == "5000 of 10000 images"
    page.select_option("#set", "1")
    assert page.inner_text("#count") == "2500 of 10000 images"
    page.fill("#search", "PHOTO 4999 of")
    assert shown(page) == [COUNT - 1]
    page.fill("#search", "")
    page.select_option("#set", "")
    page.select_option("#kept", "dropped")
    assert shown(page) == [3]
    page.select_option("#class", "")


def test_a_click_shows_the_source_the_caption_the_row_and_the_command(page, gallery):
    page.select_option("#kept", "dropped")
    page.locator("#grid button").click()
    page.wait_for_selector("dialog[open]")
    assert page.locator("#images img").count() == 2
    assert "the real image k3" in page.inner_text("#images")
    assert "label: 0.001 < 0.01" in page.inner_text("#reason")
    text = page.inner_text("#row")
    assert all(part in text for part in (str(2**62 + 3), "photo 3 of </script>"))
    assert page.inner_text("#command").endswith("synthetic/0 k3-r0")
    page.click("#close")
    assert page.said == []
    assert all(url.startswith(("file://", "data:")) for url in page.asked)


def test_a_caption_is_that_of_the_caption_key(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    write_image_set(tmp_path / "set", [Sample("a", 0, pixels, {"caption_key": "b"})], ["cat"])
    write_gallery([Exhibit(ImageSet(tmp_path / "set"))], [], {"b": "words"}, tmp_path / "out")
    script = (tmp_path / "out/blocks/0.js").read_text()
    block = json.loads(script[script.index("{") : script.rindex(")")])
    assert block["rows"][0]["caption"] == "words"


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(TruelikeError, match="holds something else"):
        write_gallery([], [], {}, tmp_path)
