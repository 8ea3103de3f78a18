"""The web page of a caption evaluation: complete, safe, and with the best and worst captions."""

import re
from pathlib import Path

import pytest
from html_tags import Page
from PIL import Image

from evaluation.caption_examples import pick_examples
from evaluation.caption_page import caption_page
from evaluation.caption_plot import draw_captions
from evaluation.captions import LanguageResult, WrittenCaption, score_written
from evaluation.references import Photo, References
from evaluation.report import Report, ReportTable
from models.captions import Caption
from retrieval.datastore import Neighbour

TEXTS = [
    "كلب يجري على العشب الأخضر",
    "طفلان يسبحان في بحيرة",
    "رجل عجوز يصلح دراجته",
    "سيارة حمراء في الشارع",
]
WRITTEN = [TEXTS[0], "طفلان يسبحان", TEXTS[2], "<b>لا شيء</b>"]
REPORT = Report(
    "A & B", ["bundle <x>", "ar: `tok:words`"], [ReportTable("Scores <1>", ["a", "b"], [["ar", "1"]])], {}
)


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    for number in range(4):
        Image.new("RGB", (640, 480), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return [Photo(str(number), tmp_path / f"{number}.png") for number in range(4)]


@pytest.fixture
def written() -> list[WrittenCaption]:
    near = (Neighbour("e", "A <dog>", "en", 0.91),)
    return [
        WrittenCaption(str(number), f"{number}.png", "with", Caption("ar", text, 0.5, neighbours=near))
        for number, text in enumerate(WRITTEN)
    ]


@pytest.fixture
def results(written: list[WrittenCaption]) -> list[LanguageResult]:
    texts = {str(number): [text] for number, text in enumerate(TEXTS)}
    return score_written(written, {"ar": References("ar", ("human",), texts)})


def test_the_best_and_the_worst(
    results: list[LanguageResult], written: list[WrittenCaption], photos: list[Photo]
) -> None:
    (found,) = pick_examples(results, written, photos, 1)
    assert [example.image_id for example in found.best] == ["0"]
    assert [example.text for example in found.worst] == [WRITTEN[3]]
    (found,) = pick_examples(results, written, photos, 3)  # no caption is shown as both
    assert [len(found.best), len(found.worst)] == [3, 1]
    (found,) = pick_examples(results, written, photos, 0)
    assert found.best == found.worst == ()


def test_the_page_is_self_contained_and_safe_and_keeps_directions(
    results: list[LanguageResult], written: list[WrittenCaption], photos: list[Photo]
) -> None:
    picture = draw_captions(results, {})
    assert picture.startswith(b"\x89PNG")
    html = caption_page(REPORT, picture, pick_examples(results, written, photos, 1))
    page = Page(html)
    assert [str(image["src"]).split(",")[0] for image in page.attributes("img")] == [
        "data:image/png;base64", "data:image/jpeg;base64", "data:image/jpeg;base64",
    ]  # fmt: skip
    assert not re.search(r"url\(|@import|<script|https?:|<b>لا", html)
    for part in (
        "A & B",
        "bundle <x>",
        "Scores <1>",
        WRITTEN[3],
        "A <dog>",
        "0.91",
        "CIDEr-D 0.0",
        "العربية",
    ):
        assert part in page.text
    captions = [attributes for attributes in page.attributes("p") if attributes.get("class") == "caption"]
    assert [attributes.get("dir") for attributes in page.attributes("ul")][1:] == [
        "rtl",
        "ltr",
    ] * 2  # bullets, too
    assert captions == [{"class": "caption", "lang": "ar", "dir": "auto"}] * 2


def test_the_curve_is_drawn_below_the_bars(written: list[WrittenCaption]) -> None:
    more = [
        WrittenCaption(output.image_id, output.file, mode, output.caption)
        for mode in ("with", "without", "k=1")
        for output in written
    ]
    texts = {str(number): [text] for number, text in enumerate(TEXTS)}
    results = score_written(more, {"ar": References("ar", ("human",), texts)})
    import io

    alone = Image.open(io.BytesIO(draw_captions(results, {})))
    both = Image.open(io.BytesIO(draw_captions(results, {0: "without", 1: "k=1", 4: "with"})))
    assert both.height > 1.5 * alone.height
