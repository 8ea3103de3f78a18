"""What a build counts while it runs and says when it is done; the module writes and prints nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from datastore_build.duplicates.search import SimilarTexts
from datastore_build.sources.readers import Source
from datastore_build.sources.rows import Reject, Row
from retrieval.errors import DatastoreError
from retrieval.manifest import IndexSettings, SourceRecord

_REJECTS_SHOWN = 10


@dataclass(frozen=True)
class RejectedRow:
    file: str  # the path as it was given
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class BuildProgress:
    """How far the stage is that a build is at.

    First reading, comparing, embedding; then for an exact index indexing, for a graph linking and tuning, for
    lists training, adding, writing and tuning.
    """

    fraction: float | None  # of the stage: of the sources' bytes, of the entries; None: nobody knows
    rows: int
    texts: int  # embedded
    rejected: int
    stage: str = "embedding"


@dataclass(frozen=True)
class NearDuplicates:
    """Texts that nearly equal one of an earlier entry in the same language."""

    texts: int
    languages: dict[str, int]  # of these texts
    entries: int  # all of whose texts are
    dropped: bool  # were those entries left out?
    first: tuple[SimilarTexts, ...]


@dataclass(frozen=True)
class BuildReport:
    """What a build did. The JSON of `build --json` is this."""

    version: str
    path: str  # of the version's folder
    reused: bool  # the same content was there already and was made live
    embedder: str
    index: IndexSettings  # how it was built and is searched, why this kind, what it measured
    entries: int
    texts: int
    languages: dict[str, int]  # texts per language
    repeated_texts: int
    rows: int
    published: int  # rows
    rejected: int  # rows
    rejects_file: str | None
    rejects: tuple[RejectedRow, ...]  # the first few
    dropped: dict[str, int]  # texts that were left out though they can be used: by what → how many
    near_duplicates: NearDuplicates | None  # None: not looked for
    embedded: int  # entries embedded in this run; the others were taken over
    resumed: bool
    removed: tuple[str, ...]  # what builds that died had left behind
    sources: tuple[dict[str, object], ...]  # name, rows, published, rejected
    seconds: float


class RejectedRowsError(DatastoreError):
    """Rows that cannot be used made the build fail; `rejects` are the first of them."""

    def __init__(self, message: str, rejects: Sequence[RejectedRow], rejected: int) -> None:
        super().__init__(message)
        self.rejects = tuple(rejects)
        self.rejected = rejected  # how many there are


@dataclass
class Tally:
    """Counts of a build while it runs."""

    sources: Sequence[Source]
    rows: Counter[int] = field(default_factory=Counter)  # per source
    rejects: Counter[int] = field(default_factory=Counter)  # per source
    first_rejects: list[RejectedRow] = field(default_factory=list)
    unusable: int = 0  # rows
    dropped: Counter[str] = field(default_factory=Counter)  # texts left out by a filter, per filter

    @property
    def total(self) -> int:
        return self.rows.total()

    @property
    def rejected(self) -> int:
        return self.rejects.total()

    def count(self, items: Iterable[Row | Reject]) -> Iterator[Row | Reject]:
        for item in items:
            self.rows[item.source] += 1
            yield item

    def reject(self, item: Reject) -> RejectedRow:
        self.rejects[item.source] += item.whole_row
        if item.kind == "unusable":
            self.unusable += 1
        else:
            self.dropped[item.kind] += 1
        row = RejectedRow(str(self.sources[item.source].path), item.line, item.reason)
        if len(self.first_rejects) < _REJECTS_SHOWN:
            self.first_rejects.append(row)
        return row

    def progress(self) -> BuildProgress:
        size = sum(source.size for source in self.sources)
        read = sum(source.size * source.progress for source in self.sources)
        return BuildProgress(read / max(size, 1), self.total, 0, self.rejected, "reading")

    def source_records(self) -> list[SourceRecord]:
        return [
            SourceRecord(
                name=source.name,
                rows=self.rows[source.number],
                published=self.rows[source.number] - self.rejects[source.number],
                rejected=self.rejects[source.number],
            )
            for source in self.sources
        ]

    def check(self, *, strict: bool, entries: int) -> None:
        """Raises DatastoreError if there is nothing to publish, or strict forbids it."""
        if strict and self.unusable:
            message = (
                f"{self.unusable:,} of {self.total:,} rows cannot be used; with --strict nothing is published"
            )
        elif not entries:
            names = ", ".join(str(source.path) for source in self.sources)
            message = f"{names}: none of {self.total:,} rows can be used; nothing was published"
        else:
            return
        raise RejectedRowsError(message, self.first_rejects, self.rejected)
