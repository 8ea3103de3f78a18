import html.parser
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_datastores import EMBEDDER, publish
from typer.testing import CliRunner

from app.commands.datastore import datastore_app
from datastore_build.map.page import map_page
from datastore_build.map.projection import project
from retrieval.datastore import Datastore

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; & \\u003c ${7*7} `x` '",
    "line\u2028separator\u2029here",
]
MULTILINGUAL = {"en": "a cat", "ar": "قطة نائمة", "hi": "एक बिल्ली", "zh": "一只猫"}


class Page(html.parser.HTMLParser):
    """What a browser sees: the elements, and the contents of scripts and styles."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in self.contents:
            self.contents[self.tags[-1][0]].append(data)


def open_store(tmp_path: Path, rows: list[str | dict[str, Any]]) -> Datastore:
    publish(tmp_path / "datastore", rows)
    return Datastore.open(tmp_path / "datastore")


def data_of(page: str) -> Any:
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_hostile_captions_stay_texts(tmp_path: Path) -> None:
    rows: list[str | dict[str, Any]] = [*HOSTILE, {"id": "</script>", "texts": MULTILINGUAL}]
    store = open_store(tmp_path, rows)
    content = map_page(store, project(store, 1000), "</title><script>alert(2)</script>")
    page, harmless = Page(content), Page(map_page(store, project(store, 1), "x"))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    data = data_of(content)
    texts = [part for entry in data["entries"] for part in entry[4::2]]
    assert texts == [" ".join(text.split()) for text in HOSTILE] + list(MULTILINGUAL.values())
    assert data["entries"][-1][2] == "</script>"
    assert {language["code"] for language in data["languages"]} == set(MULTILINGUAL)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    store = open_store(tmp_path, ["a cat", "a dog"])
    page = Page(map_page(store, project(store, 1000), "my captions"))
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.tags)
    (policy,) = (
        str(attributes["content"])
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "innerHTML" not in page.contents["script"][-1]


def test_positions_are_the_principal_components(tmp_path: Path) -> None:
    texts = [f"thing {number} at place {number % 7} in colour {number % 3}" for number in range(60)]
    store = open_store(tmp_path, list(texts))
    projection = project(store, 1000)
    vectors = EMBEDDER.embed_texts(texts).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:2].T
    expected /= np.abs(expected).max()
    assert projection.entries.tolist() == list(range(60))
    assert np.abs(np.abs(projection.positions) - np.abs(expected)).max() < 1e-4  # an axis may be mirrored
    assert projection.explained == pytest.approx(float((singular[:2] ** 2).sum() / (singular**2).sum()))
    again = project(store, 1000)
    assert np.array_equal(again.positions, projection.positions)


def test_of_many_a_part_is_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path, [{"texts": {"en": f"thing {n}", "de": f"Ding {n}"}} for n in range(200)])
    projection = project(store, 100)
    content = map_page(store, projection, "things")
    assert len(projection.entries) == len(data_of(content)["entries"]) == 50
    assert "50 of 200 entries, drawn at random" in content
    assert 20 < np.median(projection.entries) < 180


@pytest.mark.parametrize("rows", [["one caption"], ["a cat", "a cat"]])
def test_what_has_no_extent_is_a_map_all_the_same(tmp_path: Path, rows: list[str | dict[str, Any]]) -> None:
    store = open_store(tmp_path, rows)
    positions = project(store, 10).positions
    assert positions.shape == (len(rows), 2)
    assert np.isfinite(positions).all()
    assert len(data_of(map_page(store, project(store, 10), "x"))["entries"]) == len(rows)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    publish(tmp_path / "datastore", ["a cat", "a dog"])
    output = tmp_path / "map.html"
    result = CliRunner().invoke(datastore_app, ["map", str(tmp_path / "datastore"), "--output", str(output)])
    assert (result.exit_code, result.stdout) == (0, f"{output}: 2 entries\n")
    content = output.read_text(encoding="utf-8")
    assert "<title>datastore: map of a datastore</title>" in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datastore", "datastore.jsonl", "map.html"]
