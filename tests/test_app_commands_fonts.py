"""Fonts for scripts. What needs the system's fonts or FriBidi is skipped, by name, where they are missing."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app.commands import fonts
from app.commands.fonts import FontFile, can_shape, find_font, font_package, is_right_to_left, needs_shaping

ZWNJ = "\u200c"  # keeps the letters before and after it from joining


def dejavu() -> FontFile:
    """A font that comes with matplotlib: Latin, Cyrillic and Arabic letters, neither Devanagari nor Han."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return FontFile(str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"))


def drawn(font: FontFile, text: str, direction: str) -> bytes:
    picture = Image.new("L", (400, 80), 0)
    ImageDraw.Draw(picture).text((10, 10), text, 255, font.at(40, shaped=True), direction=direction)
    return picture.tobytes()


needs_raqm = pytest.mark.skipif(
    not can_shape(), reason="Pillow's Raqm needs FriBidi: apt-get install libfribidi0"
)


@needs_raqm
def test_arabic_letters_join() -> None:
    font = dejavu()
    joined = drawn(font, "قطة", "rtl")
    assert joined != drawn(font, ZWNJ.join("قطة"), "rtl")
    assert joined != drawn(font, "قطة"[::-1], "rtl")
    assert any(joined)


@needs_raqm
def test_devanagari_conjuncts_are_formed() -> None:
    font = find_font("क्षि")
    if font is None:
        pytest.skip("no font for Devanagari: apt-get install fonts-noto-core")
    assert drawn(font, "क्ष", "ltr") != drawn(font, f"क्{ZWNJ}ष", "ltr")
    # The vowel sign is written behind its consonant and drawn before it.
    unshaped = Image.new("L", (400, 80), 0)
    ImageDraw.Draw(unshaped).text((10, 10), "कि", 255, font.at(40, shaped=False))
    assert drawn(font, "कि", "ltr") != unshaped.tobytes()


@pytest.mark.parametrize(
    ("text", "package"), [("A cat.", "fonts-noto-core"), ("قطة.", "fonts-noto-core"),
                          ("बिल्ली है।", "fonts-noto-core"), ("一只猫。", "fonts-noto-cjk")],
)  # fmt: skip
def test_a_font_with_all_letters_is_found(text: str, package: str) -> None:
    assert font_package(text) == package
    font = find_font(text)
    if font is None:
        pytest.skip(f"no font for {text!r}: apt-get install {package}")
    face = font.at(24, shaped=False)
    nothing = bytes(face.getmask("\U0010ffff"))
    assert all(bytes(face.getmask(letter)) != nothing for letter in text if letter.isalpha())


def test_a_font_that_claims_a_script_it_lacks_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_of_fontconfig", lambda letters: iter([("notosansregular", dejavu())]))
    monkeypatch.setattr(fonts, "_of_folders", lambda: iter([]))
    fonts._find.cache_clear()
    try:
        assert find_font("Кішка قطة cat") == dejavu()
        assert find_font("बिल्ली") is None
        assert find_font("猫") is None
    finally:
        fonts._find.cache_clear()


def test_without_fontconfig_folders_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "inside"
    folder.mkdir(parents=True)
    (folder / "DejaVuSans.ttf").write_bytes(Path(dejavu().path).read_bytes())
    (folder / "Arial.ttf").write_bytes(b"damaged")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path), str(tmp_path / "missing")))
    fonts._find.cache_clear()
    try:
        assert find_font("a cat") == FontFile(str(folder / "DejaVuSans.ttf"))
        assert find_font("猫") is None
    finally:
        fonts._find.cache_clear()


def test_plain_faces_come_before_others() -> None:
    names = [
        "arial",
        "notosansbold",
        "notosansregular",
        "zapfino",
        "dejavusansmonobook",
        "notosansarabicregular",
    ]
    assert sorted(names, key=fonts._rank) == [
        "notosansregular", "notosansarabicregular", "arial", "zapfino", "notosansbold", "dejavusansmonobook",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "right_to_left", "shaped"),
    [
        ("A cat", False, False),
        ("قطة cat", True, True),
        ("12, قطة", True, True),
        ("iPhone قطة", False, True),
        ("बिल्ली", False, True),
        ("кіт猫", False, False),
        ("12.", False, False),
    ],
)
def test_direction_and_shaping_follow_from_the_letters(text: str, right_to_left: bool, shaped: bool) -> None:
    assert (is_right_to_left(text), needs_shaping(text)) == (right_to_left, shaped)
