"""Pages in one file."""

import base64
import io

from html_tags import Page
from PIL import Image

from evaluation.html_document import html_document, jpeg_url, language_names, picture_url, text_attributes


def test_a_page_may_load_and_run_nothing_and_its_title_is_text() -> None:
    page = Page(html_document("<script>a & b", "p { color: red; }", "<p>Hello</p>"))
    (policy,) = (tag["content"] for tag in page.attributes("meta") if "http-equiv" in tag)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "<script>a & b" in page.text
    assert not page.attributes("script")
    assert "Hello" in page.text


def test_languages_are_named_in_english_and_in_themselves() -> None:
    assert language_names("en") == "English"
    assert language_names("uk") == 'Ukrainian <span lang="uk">українська</span>'
    assert language_names('"><b>') == "&quot;&gt;&lt;b&gt;"  # as of a hostile datastore
    assert text_attributes('"') == 'lang="&quot;" dir="auto"'


def test_pictures_are_inside() -> None:
    kind, _, content = jpeg_url(Image.new("RGB", (7, 5))).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (7, 5)
    assert picture_url(b"abc", "png") == "data:image/png;base64,YWJj"
