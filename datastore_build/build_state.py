"""What a build is asked for and how far it came, as state.json of its draft keeps it.

Two builds with equal plans make equal versions; a build goes on only with the draft of an equal plan.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from datastore_build.report import NearDuplicates, RejectedRow
from retrieval.errors import DatastoreError
from retrieval.manifest import Counts, FileRecord, IndexRequest, SourceRecord

NearDuplicateChoice = Literal["report", "drop", "keep"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QualityFilters(_Record):
    """Which texts are left out. A limit of None is none."""

    min_words: int | None = None
    max_words: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    check_language: bool = False  # those whose language is plainly another than their label
    min_match: float | None = None  # confidence that the text fits the photo that its row names


class SourceIdentity(_Record):
    """A source as it was when the build began."""

    path: str
    bytes: int
    modified_ns: int


class BuildPlan(_Record):
    """Everything that a version depends on."""

    sources: tuple[SourceIdentity, ...]
    base: str | None  # content hash of the version that is added to
    embedder: str
    dimension: int
    language: str
    index: IndexRequest
    strict: bool
    filters: QualityFilters
    near_duplicates: NearDuplicateChoice
    shard_entries: int

    def differences(self, other: "BuildPlan") -> list[str]:
        """What differs, as a user calls it."""
        names = {
            "base": "live version",
            "index": "options of the index",
            "filters": "quality filters",
            "near_duplicates": "--near-duplicates",
        }
        fields = type(self).model_fields
        return [
            names.get(field, field.replace("_", " "))
            for field in fields
            if getattr(self, field) != getattr(other, field)
        ]


class Staged(_Record):
    """The captions are written; what is known of them since."""

    counts: Counts
    base_entries: int  # the first so many are those of the version that is added to
    source_records: tuple[SourceRecord, ...]
    rows: int
    rejected: int
    first_rejects: tuple[RejectedRow, ...]
    dropped: dict[str, int]  # texts that a filter left out, per filter
    near_duplicates: NearDuplicates | None  # None: not looked for
    files: dict[str, FileRecord]


class BuildState(_Record):
    plan: BuildPlan | None
    staged: Staged | None = None


def identify(path: Path) -> SourceIdentity:
    """Raises DatastoreError."""
    try:
        status = path.stat()
    except OSError as error:
        raise DatastoreError(f"cannot read {path}: {error.strerror}") from None
    return SourceIdentity(path=str(path.resolve()), bytes=status.st_size, modified_ns=status.st_mtime_ns)
