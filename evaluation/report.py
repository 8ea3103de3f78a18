"""Tables that read the same on a terminal and in Markdown, and reports written so that none is half there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from retrieval.errors import InvalidRequestError
from retrieval.files import replacing

MARKDOWN, JSON, HTML = ".md", ".json", ".html"


@dataclass(frozen=True)
class ReportTable:
    """Cells are finished text. The first column is aligned left, the others right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def terminal(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [list(self.header), ["---"] + ["---:"] * (len(self.header) - 1), *map(list, self.rows)]
        return f"## {self.title}\n\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


@dataclass(frozen=True)
class Report:
    """A finished evaluation: the same findings as text with tables and as a JSON document."""

    title: str
    facts: Sequence[str]  # what was evaluated and how; a line each
    tables: Sequence[ReportTable]
    document: dict[str, Any]
    figure: tuple[str, str] | None = None  # what a picture shows, and its file, relative to the Markdown file

    def markdown(self) -> str:
        facts = "".join(f"- {fact}\n" for fact in self.facts)
        figure = "![{}]({})\n\n".format(*self.figure) if self.figure else ""
        return f"# {self.title}\n\n{facts}\n{figure}" + "\n".join(table.markdown() for table in self.tables)

    def write(self, path: Path) -> None:
        """Write Markdown or JSON, as the suffix says; see `check_report_path`."""
        if path.suffix == JSON:
            write_atomically(path, json.dumps(self.document, ensure_ascii=False, indent=2) + "\n")
        else:
            write_atomically(path, self.markdown())


def check_report_path(path: Path, suffixes: Sequence[str] = (MARKDOWN, JSON)) -> None:
    """Raise InvalidRequestError if no report could be written there; asked before hours of work are done."""
    if path.suffix not in suffixes:
        raise InvalidRequestError(
            f"{path}: a report is written to a file that ends in {' or '.join(suffixes)}"
        )
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise InvalidRequestError if the folder a file is to be written in does not exist."""
    if not path.absolute().parent.is_dir():
        raise InvalidRequestError(
            f"{path}: the folder {path.absolute().parent} does not exist: make it first"
        )


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, once its new content is on the disk.

    Raises:
        InvalidRequestError: it cannot be written there.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InvalidRequestError(f"cannot write {path}: {error.strerror}") from error
