"""Rows of a data file that cannot be used: counted by reason, and on demand all listed."""

import json
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from retrieval.errors import InvalidRequestError

_EXAMPLES = 3  # of each reason, for the report


class Rejects(AbstractContextManager["Rejects"]):
    """Takes rows that are left out.

    Args:
        log: every row with its file, line and reason is written there, as JSON Lines.

    Raises:
        InvalidRequestError: the log cannot be written.
    """

    def __init__(self, log: Path | None = None) -> None:
        self.counts = Counter[str]()
        self._examples: dict[str, list[str]] = {}
        self._log: TextIO | None = None
        if log is not None:
            try:
                self._log = log.open("w", encoding="utf-8")
            except OSError as error:
                raise InvalidRequestError(f"cannot write {log}: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    @property
    def total(self) -> int:
        return self.counts.total()

    def add(self, path: Path, place: str, reason: str) -> None:
        """One row; `place` is its line, or where in a document it is."""
        self.counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{path.name}:{place}")
        if self._log is not None:
            row = {"file": str(path), "place": place, "reason": reason}
            self._log.write(json.dumps(row, ensure_ascii=False) + "\n")

    def lines(self) -> list[str]:
        """The report: each reason with its count and its first rows, most frequent first."""
        return [
            f"{count:,} left out: {reason} ({', '.join(self._examples[reason])}"
            f"{', …' if count > len(self._examples[reason]) else ''})"
            for reason, count in self.counts.most_common()
        ]
