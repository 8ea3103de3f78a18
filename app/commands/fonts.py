"""Which font has the letters of a text, and whether they can be shaped: joined, reordered, right to left.

Fonts come from fontconfig where there is one, else from the folders that systems keep them in. That a font
knows a script is not taken on trust: each letter is drawn and compared with what the font draws for none.
"""

import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
# Plain text faces, best first, by how their names begin once spaces and hyphens are gone.
_PREFERRED = (
    "notosansregular",
    "notosanscjksc",
    "notosanssc",
    "sourcehansanssc",
    "notosans",
    "dejavusans",
    "wenquanyizenhei",
    "wqyzenhei",
    "pingfang",
    "hiraginosansgb",
    "microsoftyahei",
    "msyh",
    "segoeui",
    "nirmala",
    "geezapro",
    "kohinoordevanagari",
    "arialunicode",
    "arial",
    "tahoma",
)
_FOR_OTHER_USES = ("bold", "italic", "oblique", "mono", "thin", "light", "black", "condensed", "sharp")
_SHAPED_SCRIPTS = (  # letters change by their neighbours although they run from left to right
    "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM",
    "SINHALA", "TIBETAN", "MYANMAR", "KHMER", "MONGOLIAN",
)  # fmt: skip
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
SHAPING_PACKAGE = "libfribidi0"
_NO_CHARACTER = "\U0010ffff"  # never assigned: a font draws its sign for a missing letter


@dataclass(frozen=True)
class FontFile:
    path: str
    index: int = 0  # of the face, in a collection

    def at(self, size: int, *, shaped: bool) -> ImageFont.FreeTypeFont:
        """The font in a size in pixels. Raises OSError: it cannot be read."""
        engine = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
        return ImageFont.truetype(self.path, size, index=self.index, layout_engine=engine)


def can_shape() -> bool:
    """Whether Pillow has Raqm; its wheels do, and load FriBidi from the system when there is one."""
    return bool(features.check("raqm"))


def is_right_to_left(text: str) -> bool:
    """By its first letter that has a direction."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction for direction in directions if direction in ("L", "R", "AL")), "L") != "L"


def needs_shaping(text: str) -> bool:
    return any(
        unicodedata.bidirectional(character) in ("R", "AL")
        or unicodedata.name(character, "").startswith(_SHAPED_SCRIPTS)
        for character in text
    )


def font_package(text: str) -> str:
    """The Debian package with a font for a text."""
    east_asian = any(unicodedata.name(character, "").startswith(_EAST_ASIAN) for character in text)
    return "fonts-noto-cjk" if east_asian else "fonts-noto-core"


def find_font(text: str) -> FontFile | None:
    """A plain font that has every letter of a text; None if this machine has none."""
    return _find("".join(sorted(_visible(text))))


@lru_cache(maxsize=256)
def _find(letters: str) -> FontFile | None:
    for candidates in (_of_fontconfig(letters), _of_folders()):
        ordered = sorted(candidates, key=lambda named: (_rank(named[0]), named[0], named[1].path))
        for _, font in ordered:
            if _has_all(font, letters):
                return font
    return None


def _of_fontconfig(letters: str) -> Iterator[tuple[str, FontFile]]:
    """Names and files of fonts that have these letters, as fontconfig says."""
    program = shutil.which("fc-list")
    if program is None:
        return
    pattern = ":charset=" + " ".join(f"{ord(letter):x}" for letter in letters)
    layout = "%{file}\t%{index}\t%{family[0]}\t%{style[0]}\n"
    try:
        listed = subprocess.run(
            [program, "--format", layout, pattern], capture_output=True, timeout=60, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return
    for line in listed.splitlines():
        path, index, family, style = [*line.split("\t"), "", "", ""][:4]
        if index.isdecimal():  # variable fonts are listed once more, with named instances as higher bits
            yield _plain(family + style), FontFile(path, int(index) & 0xFFFF)


def _of_folders() -> Iterator[tuple[str, FontFile]]:
    for folder in (Path(name).expanduser() for name in _FOLDERS if name[0] != "C" or sys.platform == "win32"):
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.suffix.lower() in (".ttf", ".otf", ".ttc"):
                yield _plain(path.stem), FontFile(str(path))


def _rank(name: str) -> tuple[bool, int, int]:
    """The smaller the better: upright and regular, then known families, then short names."""
    known = [number for number, start in enumerate(_PREFERRED) if name.startswith(start)]
    other_use = any(word in name for word in _FOR_OTHER_USES)
    return other_use, min(known, default=len(_PREFERRED)), len(name)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _visible(text: str) -> set[str]:
    """Characters that leave ink."""
    return {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc")}


def _has_all(font: FontFile, letters: str) -> bool:
    try:
        face = font.at(24, shaped=False)
        missing = bytes(face.getmask(_NO_CHARACTER)), face.getlength(_NO_CHARACTER)
        return all((bytes(face.getmask(c)), face.getlength(c)) != missing for c in letters)
    except OSError:  # a damaged font, or one with bitmaps in other sizes alone
        return False
