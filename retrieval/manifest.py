"""A datastore's folder: its layout, a version's manifest, and the check that its files are the ones named.

    datastore/
      CURRENT                         the name of the live version
      versions/<version>/manifest.json
      versions/<version>/captions.arrow
      versions/<version>/index.faiss
      versions/<version>/vectors.bin      only if the index's answers are scored again
      versions/<version>/deleted.npy      only if entries are deleted: their numbers
      versions/<version>/rejects.jsonl    only if rows were rejected

This module reads and checks; it does not know what is inside captions.arrow and index.faiss, and nothing of
how a version is made.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from retrieval.errors import DatastoreError
from retrieval.files import open_regular

FORMAT_VERSION = 1
CURRENT = "CURRENT"
VERSIONS = "versions"
MANIFEST = "manifest.json"
CAPTIONS = "captions.arrow"
INDEX = "index.faiss"
VECTORS = "vectors.bin"
DELETED = "deleted.npy"
REJECTS = "rejects.jsonl"

_LARGEST_MANIFEST = 16 * 2**20  # bytes; a real one has a few thousand
_VERSION_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,99}")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ParameterName = Annotated[str, Field(pattern=r"^[a-z_]{1,30}$")]
IndexKind = Literal["flat", "hnsw", "ivf-flat", "ivf-pq"]
IndexChoice = Literal["auto", "flat", "hnsw", "ivf-flat", "ivf-pq"]
StorageKind = Literal["float32", "float16", "int8"]
FileName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")]  # never a path


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    bytes: NonNegativeInt
    sha256: Sha256


class SourceRecord(_Record):
    """What became of the rows of one source file."""

    name: str
    rows: NonNegativeInt
    published: NonNegativeInt
    rejected: NonNegativeInt


class Counts(_Record):
    entries: NonNegativeInt
    texts: NonNegativeInt
    repeated_texts: NonNegativeInt  # texts that an earlier entry has in the same language
    languages: dict[str, NonNegativeInt]  # texts per language


class SearchSettings(_Record):
    """How far an approximate index looks; each kind has its own of them."""

    ef_search: PositiveInt | None = None  # breadth of the search in an HNSW graph
    nprobe: PositiveInt | None = None  # lists of an IVF index; with a margin, at most
    probe_margin: NonNegativeFloat | None = (
        None  # of the nearest list's cosine, within which lists are searched
    )
    candidates: PositiveInt | None = None  # entries scored again from the stored vectors


class Measurement(_Record):
    """What a search was worth on held-out queries, one by one on one core, when the index was built."""

    queries: PositiveInt
    k: PositiveInt
    recall: Annotated[float, Field(ge=0, le=1)]  # share of the k truly nearest that were found
    median_ms: NonNegativeFloat
    p99_ms: NonNegativeFloat


class DeletedCounts(_Record):
    """What the files still hold of deleted entries; `Counts` does not count it."""

    entries: PositiveInt
    texts: PositiveInt


class IndexRequest(_Record):
    """What is asked of an index. None: no limit, for `auto` the default."""

    kind: IndexChoice = "auto"
    memory_budget: PositiveInt | None = None  # bytes that an opened index may take
    target_ms: PositiveFloat | None = None  # a query on one core
    target_recall: Annotated[float, Field(gt=0, le=1)] = 0.95


class IndexSettings(_Record):
    kind: IndexKind
    parameters: dict[ParameterName, PositiveInt] = {}  # as built: nlist, m, subquantizers, …
    storage: StorageKind | None = None  # of the vectors of an HNSW index, or of those that score again
    search: SearchSettings = SearchSettings()
    asked: IndexRequest = IndexRequest()  # of this index; of one with more entries it will be the same
    reason: str = ""  # why this kind
    measured: Measurement | None = None

    def content(self) -> dict[str, object]:
        """What distinguishes two indexes. Times differ from one build to the next and are not part of it."""
        return self.model_dump(exclude={"reason", "measured"}, exclude_defaults=True)


class Manifest(_Record):
    """manifest.json. It is written last, so a version that has one is complete."""

    format_version: Literal[1]
    version: str
    embedder: str
    dimension: PositiveInt
    metric: Literal["inner_product"]
    counts: Counts
    deleted: DeletedCounts | None = None
    index: IndexSettings
    faiss_version: str
    created: str  # ISO 8601, UTC
    tool_version: str
    sources: tuple[SourceRecord, ...]
    files: dict[FileName, FileRecord]
    content_sha256: Sha256  # of `content_hash`'s arguments
    complete: Literal[True]

    @property
    def stored_entries(self) -> int:
        """Entries in the files, deleted ones too."""
        return self.counts.entries + (self.deleted.entries if self.deleted else 0)

    @property
    def stored_texts(self) -> int:
        """Texts in the files, those of deleted entries too."""
        return self.counts.texts + (self.deleted.texts if self.deleted else 0)


def content_hash(embedder: str, dimension: int, index: IndexSettings, files: dict[str, FileRecord]) -> str:
    """What makes two versions the same: embedder, index settings and the bytes of every file."""
    content = {
        "embedder": embedder,
        "dimension": dimension,
        "index": index.content(),
        "files": {name: record.sha256 for name, record in sorted(files.items())},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def describe_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file. Raises OSError."""
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(bytes=file.tell(), sha256=digest)


def live_version(datastore: Path) -> Path:
    """The folder of the version CURRENT names. Raises DatastoreError."""
    if not datastore.exists():
        raise DatastoreError(
            f"there is no datastore at {datastore}: make one with `paellera datastore build`"
        )
    try:
        with open_regular(datastore / CURRENT) as file:
            name = file.read(256).decode("ascii", "replace").strip()
    except OSError as error:
        raise DatastoreError(
            f"{datastore} is not a datastore ({CURRENT}: {error.strerror}): "
            "make one with `paellera datastore build`"
        ) from None
    if not _VERSION_NAME.fullmatch(name):
        raise DatastoreError(f"{datastore / CURRENT} does not hold the name of a version: {name[:40]!r}")
    version = datastore / VERSIONS / name
    if not version.is_dir():
        raise DatastoreError(
            f"{datastore / CURRENT} names version {name}, which is not in {datastore / VERSIONS}"
        )
    return version


def named_version(datastore: Path, name: str) -> Path:
    """The folder of a version, live or not. Raises DatastoreError: there is none of that name."""
    version = datastore / VERSIONS / name
    if not _VERSION_NAME.fullmatch(name) or not version.is_dir():
        raise DatastoreError(f"there is no version {name[:100]!r} in {datastore / VERSIONS}")
    return version


def read_manifest(version: Path) -> Manifest:
    """The manifest of a version folder, checked for form but not against the files. Raises DatastoreError."""
    path = version / MANIFEST
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST_MANIFEST + 1)
    except OSError as error:
        raise DatastoreError(
            f"{version} has no readable manifest ({error.strerror}): build it again"
        ) from None
    if len(content) > _LARGEST_MANIFEST:
        raise DatastoreError(f"{path} is too large to be a manifest")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatastoreError(f"{path} is not JSON: {error}") from None
    # repr, because true equals 1.
    if isinstance(parsed, dict) and repr(parsed.get("format_version")) != repr(FORMAT_VERSION):
        raise DatastoreError(
            f"{path} has format version {str(parsed.get('format_version'))[:20]}; this Paellera reads "
            f"{FORMAT_VERSION}: build the datastore again"
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(".".join(str(part) for part in first["loc"])) or "the document"
        raise DatastoreError(f"{path} is not a valid manifest: {where}: {first['msg']}") from None
    needed = {CAPTIONS, INDEX} | ({VECTORS} if manifest.index.kind == "ivf-pq" else set())
    missing = needed - manifest.files.keys()
    if missing:
        raise DatastoreError(f"{path} does not list {' and '.join(sorted(missing))}")
    if (DELETED in manifest.files) != (manifest.deleted is not None):
        raise DatastoreError(f"{path} does not say which entries are deleted: build the datastore again")
    expected = content_hash(manifest.embedder, manifest.dimension, manifest.index, dict(manifest.files))
    if expected != manifest.content_sha256:
        raise DatastoreError(f"{path} was changed after it was written: build the datastore again")
    return manifest


def verify_sizes(version: Path, manifest: Manifest) -> None:
    """Raises DatastoreError if a file is missing or has another size than the manifest says."""
    for name, record in manifest.files.items():
        try:
            size = (version / name).stat().st_size
        except OSError as error:
            raise DatastoreError(f"{version / name} cannot be read: {error.strerror}") from None
        if size != record.bytes:
            raise DatastoreError(f"{version / name} is damaged: {size:,} bytes instead of {record.bytes:,}")


def verify_files(version: Path, manifest: Manifest) -> None:
    """Raises DatastoreError unless every file has the size and the SHA-256 of the manifest.

    Sizes first: a truncated file is found without reading gigabytes.
    """
    verify_sizes(version, manifest)
    for name, record in manifest.files.items():
        try:
            found = describe_file(version / name)
        except OSError as error:
            raise DatastoreError(f"{version / name} cannot be read: {error.strerror}") from None
        if found != record:
            raise DatastoreError(f"{version / name} is damaged: its SHA-256 is not the one in the manifest")


def one_line(text: str) -> str:
    """For a message: what stands in a file may have many lines or be very long."""
    return " ".join(text.split())[:100]
