"""Is a version what its manifest says? `paellera datastore verify`, and with --deep all that is inside.

A build makes no version that fails here; disks, copies and hands do. Memory stays bounded by one block of
vectors beside what an opened datastore takes; the hashes of the ids go to a temporary file.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.digests import DigestSet
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import Manifest, live_version, named_version, read_manifest, verify_files
from retrieval.self_search import check_self_search, check_vectors
from retrieval.version_lock import while_opening

_BLOCK = 4096  # entries looked at together
_SAMPLE = 256  # entries that are searched for


@dataclass(frozen=True)
class Verification:
    """What was found in order. The JSON of `verify --json` is this."""

    version: str
    path: str
    files: int
    bytes: int
    entries: int
    texts: int
    deep: bool
    self_search: float | None  # the share of sampled entries that find themselves; None unless deep


def verify_version(datastore: Path, version: str | None = None, *, deep: bool = False) -> Verification:
    """Checks sizes and SHA-256 of every file of a version, by default the live one.

    deep: also opens it and checks that ids are unique, that every entry has texts and none of them is empty,
    that the texts per language are those of the manifest, that vectors are finite and L2-normalised, and that
    a sample of entries finds itself. Raises DatastoreError for the first thing that is wrong.
    """
    folder = live_version(datastore) if version is None else named_version(datastore, version)
    found = None
    if deep:
        store = Datastore.open(datastore, version=folder.name)
        manifest = store.manifest
        try:
            _check_texts(store)
        except OSError as error:
            raise DatastoreError(
                f"cannot write a temporary file ({error.strerror}): let TMPDIR name a folder with space"
            ) from None
        for entries in _blocks(store):
            check_vectors(store, entries, store.vectors(entries))
        found = check_self_search(store, _SAMPLE)
    else:
        with while_opening(folder):
            manifest = read_manifest(folder)
            verify_files(folder, manifest)
    return _describe(folder, manifest, found)


def _check_texts(store: Datastore) -> None:
    ids = DigestSet()
    languages: Counter[str] = Counter()
    for entry in chain.from_iterable(map(np.ndarray.tolist, _blocks(store))):
        entry_id = store.entry_id(entry)
        texts = store.texts(entry)
        if not ids.add(entry_id):
            raise DatastoreError(f"{store.folder}: two entries have the id {entry_id[:80]!r}: build it again")
        if not texts or not all(text.text.strip() for text in texts):
            raise DatastoreError(f"{store.folder}: entry {entry_id[:80]!r} has an empty text: build it again")
        languages.update(text.language for text in texts)
    said = store.manifest.counts.languages
    for language in sorted(languages.keys() | said.keys()):
        if languages[language] != said.get(language, 0):
            raise DatastoreError(
                f"{store.folder} holds {languages[language]:,} texts in {language[:20]!r}, but its manifest "
                f"says {said.get(language, 0):,}: build it again"
            )


def _blocks(store: Datastore) -> Iterator[npt.NDArray[np.int64]]:
    """The numbers of the entries that are not deleted."""
    for start in range(0, store.stored, _BLOCK):
        yield store.live(np.arange(start, min(start + _BLOCK, store.stored), dtype=np.int64))


def _describe(folder: Path, manifest: Manifest, found: float | None) -> Verification:
    return Verification(
        version=manifest.version,
        path=str(folder),
        files=len(manifest.files),
        bytes=sum(record.bytes for record in manifest.files.values()),
        entries=manifest.counts.entries,
        texts=manifest.counts.texts,
        deep=found is not None,
        self_search=found,
    )
