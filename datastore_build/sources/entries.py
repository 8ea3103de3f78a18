"""Rows into entries: the rows of one id that stand together are one scene in several languages.

Rows of an entry must be adjacent, so that a build needs to hold one entry at a time; of every id that went
by, only eight bytes of its hash are remembered, to reject one that comes back later.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from datastore_build.digests import DigestSet
from datastore_build.sources.rows import Reject, Row


@dataclass(frozen=True)
class EntryText:
    language: str
    text: str
    source: int  # which of the build's sources, counted from 0


@dataclass(frozen=True)
class Entry:
    """One scene, with a text in each of its languages."""

    id: str
    texts: tuple[EntryText, ...]
    rows: tuple[tuple[int, int], ...] = field(default=(), compare=False)  # (source, line) it was made of

    def shifted(self, by: int) -> "Entry":
        """The same in a build that has so many sources before its own."""
        if not by:
            return self
        return Entry(
            self.id, tuple(EntryText(text.language, text.text, text.source + by) for text in self.texts)
        )


def group_rows(
    items: Iterable[Row | Reject], source_names: Sequence[str], ids: DigestSet | None = None
) -> Iterator[Entry | Reject]:
    """Merges adjacent rows of one id and rejects what cannot be merged; Rejects pass through, in order.

    A row without an id becomes an entry of its own with the id <source name>:<line>. `ids` are those in use
    already; the ids of the rows are added to them.
    """
    ids = DigestSet() if ids is None else ids
    pending: Row | None = None  # the first row of the entry being collected
    texts: dict[str, EntryText] = {}
    rows: list[tuple[int, int]] = []

    for item in items:
        if isinstance(item, Reject):
            yield item
            continue
        added = {language: EntryText(language, text, item.source) for language, text in item.texts}
        if item.id is not None and pending is not None and item.id == pending.id:
            repeated = sorted(texts.keys() & added.keys())
            if repeated:
                reason = f"the id {item.id!r} already has a text in {', '.join(repeated)}"
                yield Reject(item.source, item.line, reason)
            else:
                texts |= added
                rows.append((item.source, item.line))
            continue
        if pending is not None:
            yield Entry(_id_of(pending, source_names), tuple(texts.values()), tuple(rows))
        if ids.add(_id_of(item, source_names)):
            pending, texts, rows = item, added, [(item.source, item.line)]
        else:
            pending, texts, rows = None, {}, []
            reason = (
                f"the id {item.id!r} was used by an earlier row; the rows of one entry must stand together"
            )
            yield Reject(item.source, item.line, reason)
    if pending is not None:
        yield Entry(_id_of(pending, source_names), tuple(texts.values()), tuple(rows))


def _id_of(row: Row, source_names: Sequence[str]) -> str:
    return row.id if row.id is not None else f"{source_names[row.source]}:{row.line}"
