import json
import os
from pathlib import Path

import numpy as np
import pytest
import skimage
from echo_captioner import EchoCaptioner
from PIL import Image, features
from sample_pictures import encode, noisy, plain

from app.cli import main
from app.commands import explain_picture
from app.commands.explain_picture import explanation_picture, heatmap, write_picture
from app.commands.fonts import can_shape, find_font
from app.schemas import AttentionItem, CaptionItem, WordItem

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
PANEL, GAP = 208, 12  # pixels: the longer side of a panel, and the space around it
HOT_CORNER = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
EQUAL = [[1 / 6] * 3] * 2


def caption(text: str, language: str = "en", grid: list[list[float]] = HOT_CORNER) -> CaptionItem:
    words = [WordItem(text=word, weights=grid) for word in text.split()]
    attention = AttentionItem(rows=2, columns=3, words=words)
    return CaptionItem(
        language=language, text=text, confidence=0.5, alternatives=[], neighbours=[], attention=attention
    )


def colourful(pixel: object) -> bool:
    assert isinstance(pixel, tuple)
    return bool(max(pixel) - min(pixel) > 30)


def panel_middles(picture: Image.Image, count: int, height: int, *, from_right: bool = False) -> list[object]:
    """The pixels in the middle of the panels of the first row."""
    lefts = [GAP + number * (PANEL + GAP) + PANEL // 2 for number in range(count)]
    y = GAP + 44 + height // 2
    return [picture.getpixel((picture.width - 1 - x if from_right else x, y)) for x in lefts]


def test_photo_first_then_a_panel_for_each_word() -> None:
    picture, warnings = explanation_picture(plain((200, 40, 10), (104, 52)), [caption("A red cat")])
    assert warnings == []
    assert picture.size == (GAP + 4 * (PANEL + GAP), GAP + 44 + PANEL // 2 + 36 + GAP)
    middles = panel_middles(picture, 4, PANEL // 2)
    assert [colourful(pixel) for pixel in middles] == [True, False, False, False]  # heat is in the corner
    corner = picture.getpixel((GAP + PANEL + GAP + 5, GAP + 44 + 5))
    assert isinstance(corner, tuple)
    assert corner[0] > 200  # the hottest colour, on a photo that is dark in grey


def test_a_right_to_left_row_begins_at_the_right() -> None:
    photo = plain((200, 40, 10), (104, 52))
    picture, _ = explanation_picture(photo, [caption("قطة هنا", "ar")])
    middles = panel_middles(picture, 3, PANEL // 2, from_right=True)
    assert [colourful(pixel) for pixel in middles] == [True, False, False]
    both, _ = explanation_picture(photo, [caption("A cat is sitting"), caption("قطة هنا", "ar")])
    assert both.width == GAP + 5 * (PANEL + GAP)
    y = GAP + 44 + PANEL // 2 + 36 + GAP + 44 + PANEL // 4
    assert colourful(both.getpixel((both.width - GAP - PANEL // 2, y)))


def test_letters_of_a_word_are_joined_in_the_picture() -> None:
    if not can_shape():
        pytest.skip("Pillow's Raqm needs FriBidi: apt-get install libfribidi0")
    for word, language in (("قطة", "ar"), ("क्षण", "hi")):
        if find_font(word) is None:
            pytest.skip(f"no font for {language}: apt-get install fonts-noto-core")
        apart = "\u200c".join(word)
        joined, warnings = explanation_picture(plain(), [caption(word, language)])
        assert warnings == []
        assert joined.tobytes() != explanation_picture(plain(), [caption(apart, language)])[0].tobytes()


def test_without_shaping_words_have_numbers_and_a_warning_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_picture, "can_shape", lambda: False)
    captions = [caption("قطة هنا", "ar"), caption("बिल्ली", "hi"), caption("A cat")]
    picture, warnings = explanation_picture(plain(), captions)
    assert [warning.split(" (")[1][:2] for warning in warnings] == ["ar", "hi"]
    assert all("apt-get install libfribidi0" in warning for warning in warnings)
    other, _ = explanation_picture(plain(), [caption("كلب هنا", "ar"), *captions[1:]])
    assert picture.tobytes() == other.tobytes()  # numbers alone: no letters that are wrong


def test_without_a_font_words_have_numbers_and_a_warning_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_picture, "find_font", lambda text: None)
    picture, warnings = explanation_picture(plain(), [caption("猫 狗", "zh")])
    (warning,) = warnings
    assert "Chinese (zh)" in warning
    assert "apt-get install fonts-noto-cjk" in warning
    assert picture.tobytes() == explanation_picture(plain(), [caption("火 箭", "zh")])[0].tobytes()


def test_ascii_needs_no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_picture, "find_font", lambda text: None)
    picture, warnings = explanation_picture(plain(), [caption("A cat")])
    assert warnings == []
    assert picture.tobytes() != explanation_picture(plain(), [caption("A dog")])[0].tobytes()


def test_a_long_word_stays_in_its_panel() -> None:
    picture, _ = explanation_picture(plain((200, 40, 10), (104, 52)), [caption("Donaudampfschifffahrt a")])
    labels = np.asarray(picture.convert("L"))[-36:, :]
    assert (labels[:, GAP + PANEL + GAP : 2 * (GAP + PANEL)] < 128).any()
    assert (labels[:, 2 * (GAP + PANEL) + 1 : 2 * (GAP + PANEL) + GAP] > 128).all()  # the gap behind it


def test_equal_weights_are_not_hot() -> None:
    assert heatmap(EQUAL, (30, 20)).max() == pytest.approx(0.25)
    hot = heatmap(HOT_CORNER, (30, 20))
    assert hot.shape == (20, 30)
    assert hot[0, 0] == pytest.approx(1.0)
    assert hot[15:, 15:].max() < 0.02


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    write_picture(plain(), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_picture(noisy(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("app.model.load_model", lambda *_: EchoCaptioner())
    path = tmp_path / "photo.png"
    path.write_bytes(encode(plain(), "PNG"))
    return path


@pytest.mark.parametrize(("name", "format"), [("out.png", "PNG"), ("out.JPG", "JPEG"), ("out.jpeg", "JPEG")])
def test_the_command_draws_and_still_prints(
    photo: Path, name: str, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photo.with_name(name)
    assert main(["caption", str(photo), "--explain", str(out), "-l", "en", "-l", "es", "--json"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    captions = json.loads(output)["images"][0]["captions"]
    assert [word["text"] for word in captions[1]["attention"]["words"]] == ["imagen", "200,40,10"]
    assert (captions[0]["attention"]["rows"], captions[0]["attention"]["columns"]) == (2, 3)
    with Image.open(out) as picture:
        assert picture.format == format
        assert picture.size == (GAP + 3 * (PANEL + GAP), 2 * (GAP + 44 + 156 + 36) + GAP)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["PHOTO", "PHOTO", "--explain", "FOLDER/out.png"], "draws one photo, not 2"),
        (["PHOTO", "--explain", "FOLDER/out.gif"], "must end in .png or .jpg"),
        (["PHOTO", "--explain", "FOLDER/missing/out.png"], "there is no folder"),
        (["PHOTO", "--explain", "FOLDER/folder.png"], "is a folder"),
        (["PHOTO", "--explain", "PHOTO"], "overwrite the photo"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    photo: Path, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo.with_name("folder.png").mkdir()
    before = photo.read_bytes()
    words = [word.replace("PHOTO", str(photo)).replace("FOLDER", str(photo.parent)) for word in arguments]
    assert main(["caption", *words]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert hint in errors
    assert photo.read_bytes() == before
    assert sorted(path.name for path in photo.parent.iterdir()) == ["folder.png", "photo.png"]


def test_a_photo_that_cannot_be_read_leaves_no_picture(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photo.with_name("out.png")
    photo.write_bytes(b"text")
    assert main(["caption", str(photo), "--explain", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {photo}: ")
    assert not out.exists()


def test_the_shipped_model_explains_a_cat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cat.png"
    languages = ["-l", "en", "-l", "ar", "-l", "hi", "-l", "zh"]
    assert main(["caption", str(CAT), "--explain", str(out), "--json", *languages]) == 0
    output, errors = capsys.readouterr()
    captions = json.loads(output)["images"][0]["captions"]
    words = [caption["attention"]["words"] for caption in captions]
    for per_language in words:
        for word in per_language:
            assert word["text"]
            assert [len(row) for row in word["weights"]] == [9] * 9
            assert sum(map(sum, word["weights"])) == pytest.approx(1.0, abs=1e-3)
    with Image.open(out) as picture:
        height = round(300 * PANEL / 451)
        assert picture.width == GAP + (1 + max(map(len, words))) * (PANEL + GAP)
        assert picture.height == 4 * (GAP + 44 + height + 36) + GAP
    if errors:  # only where this machine lacks a library or a font
        pytest.skip(f"drawn with numbers for words, raqm {features.check('raqm')}: {errors.strip()}")
