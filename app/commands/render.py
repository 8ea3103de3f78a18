"""How captions and tables look on a terminal. Takes reply items, writes to standard output.

Captions stand last on their line, so that right-to-left text cannot push a column out of place, and are
printed as they are: no bidirectional marks added, nothing cut. Where standard output is not a terminal, lines
are never wrapped.
"""

import json
import sys
import unicodedata
from collections.abc import Container

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.schemas import LanguageItem, SourcedImage
from retrieval.languages import display_name

_UNWRAPPED = 100_000  # columns


def print_image(image: SourcedImage) -> None:
    """The captions of one photo, and what was retrieved for it."""
    console = _console()
    heading = Text(printable(image.source), style="bold")
    heading.append(f"  {image.width} × {image.height} {image.format}", style="dim")
    console.print(heading)
    captions = _table("language", "confidence", "caption")
    for caption in image.captions:
        language = f"{caption.language}  {display_name(caption.language)}"
        captions.add_row(language, f"{caption.confidence:.2f}", Text(printable(caption.text), style="bold"))
        for other in caption.alternatives:
            captions.add_row("", f"{other.confidence:.2f}", Text(printable(other.text)))
    console.print(captions)
    first = image.captions[0]
    if not first.neighbours:
        return
    # The same entries serve every language, so showing them once is enough; --json has them all.
    neighbours = _table("retrieved", "score", f"text ({first.language})")
    for neighbour in first.neighbours:
        text = printable(neighbour.text)
        if neighbour.language != first.language:
            text = f"[{neighbour.language}] {text}"
        neighbours.add_row(printable(neighbour.id), f"{neighbour.score:.2f}", Text(text))
    console.print(neighbours)


def print_languages(languages: list[LanguageItem], in_bundle: Container[str] | None = None) -> None:
    """With `in_bundle` also a column that says which of them these are."""
    table = _table("code", "language", *([] if in_bundle is None else ["in bundle"]), "autonym")
    for language in languages:
        cells = [] if in_bundle is None else ["yes" if language.code in in_bundle else "no"]
        table.add_row(language.code, language.name, *cells, language.autonym)
    _console().print(table)


def print_fields(fields: dict[str, str]) -> None:
    """Names and values, one pair a line."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in fields.items():
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    _console().print(table)


def print_json(document: object) -> None:
    """One JSON document on standard output; with escapes where the stream cannot write Unicode."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    print(json.dumps(document, ensure_ascii=encoding != "utf8", indent=2))


def printable(text: str) -> str:
    """Without control characters: names and captions come from files and must not drive the terminal."""
    return "".join("�" if unicodedata.category(character) == "Cc" else character for character in text)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True, justify="right" if name in ("confidence", "score") else "left")
    table.add_column(columns[-1], overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNWRAPPED
    return console
