import base64
import io
import re
from pathlib import Path

import pytest
from echo_captioner import EchoCaptioner
from html_tags import Page
from PIL import Image
from sample_pictures import plain

from app.commands import demo
from app.commands.demo import SAMPLES, SamplePhoto, main
from app.commands.demo_page import CaptionedPhoto, demo_page
from app.images import decode_image
from app.schemas import CaptionItem, NeighbourItem, SourcedImage


@pytest.fixture
def captioner(monkeypatch: pytest.MonkeyPatch) -> EchoCaptioner:
    captioner = EchoCaptioner()
    monkeypatch.setattr("app.model.load_model", lambda *_: captioner)
    return captioner


def a_photo(text: str, neighbour: str) -> CaptionedPhoto:
    caption = CaptionItem(
        language="ar",
        text=text,
        confidence=0.5,
        alternatives=[],
        neighbours=[NeighbourItem(id="n", text=neighbour, language="de", score=0.25)],
    )
    item = SourcedImage(source="a <title>", width=32, height=24, format="PNG", captions=[caption])
    return CaptionedPhoto(item, plain(), "someone & co")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_every_sample_photo_comes_with_its_package(sample: SamplePhoto) -> None:
    assert min(decode_image(sample.path.read_bytes()).image.size) >= 300


def test_the_demo_shows_and_writes_captions_with_what_was_retrieved(
    captioner: EchoCaptioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page_file = tmp_path / "new folder" / "index.html"
    assert main(["--output", str(page_file)]) == 0
    output, messages = capsys.readouterr()
    assert str(page_file) in messages
    assert [settings.languages for _, settings in captioner.calls] == [
        ("en", "ar", "de", "es", "pt", "zh")  # English first, the others as the bundle has them
    ] * len(SAMPLES)
    page = Page(page_file.read_text(encoding="utf-8"))
    for sample in SAMPLES:
        assert f"{sample.title}  " in output
        assert sample.credit in page.text
    for language, word in (("Arabic", "صورة"), ("Chinese", "图片"), ("English", "picture")):
        for shown in (output, page.text):
            assert language in shown
            assert word in shown
        assert f"{word} 3" in page.text  # the fourth neighbour
    assert "picture 3" in output
    assert [file.name for file in page_file.parent.iterdir()] == ["index.html"]  # nothing half-written


def test_the_page_holds_its_pictures_and_loads_nothing() -> None:
    html = demo_page([a_photo("قطة", "Katze")])
    page = Page(html)
    assert not page.attributes("script") + page.attributes("link")
    assert not any("href" in attributes for _, attributes in page.tags)
    assert not re.search(r"url\(|@import", html)
    (image,) = page.attributes("img")
    kind, _, content = str(image["src"]).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (32, 24)


def test_the_page_escapes_texts_and_names_their_language() -> None:
    page = Page(demo_page([a_photo('<script>alert("1")</script>', "<b>Katze</b> & Hund")]))
    assert '<script>alert("1")</script>' in page.text
    assert "<b>Katze</b> & Hund" in page.text
    assert "a <title> · someone & co" in page.text
    assert not page.attributes("script")
    texts = [attributes for attributes in page.attributes("span") if "dir" in attributes]
    assert [(text["lang"], text["dir"]) for text in texts] == [("ar", "auto"), ("de", "auto")]


def test_a_missing_package_is_told_in_one_line_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "SAMPLES", (SamplePhoto("cat", "not_installed_here", "cat.png", "nobody"),))
    monkeypatch.setattr("app.model.load_model", lambda *_: pytest.fail("loaded"))
    assert main(["--output", str(tmp_path / "index.html")]) == 1
    output, messages = capsys.readouterr()
    assert output == ""
    assert messages.startswith("error: the sample photo cat.png comes with the package not_installed_here")
    assert messages.count("\n") == 1
    assert not (tmp_path / "index.html").exists()
