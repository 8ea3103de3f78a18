"""The live version of a datastore as something to make another version of: its live entries and vectors."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.sources.caption_files import CaptionsFile
from datastore_build.sources.entries import Entry
from datastore_build.version_vectors import VersionVectors
from retrieval.deleted import read_deleted
from retrieval.errors import DatastoreError
from retrieval.manifest import CAPTIONS, DELETED, live_version, read_manifest, verify_files


class Part:
    """A version whose files were verified. Raises DatastoreError."""

    def __init__(self, datastore: Path) -> None:
        self.datastore = datastore
        self.folder = live_version(datastore)
        self.manifest = read_manifest(self.folder)
        verify_files(self.folder, self.manifest)
        self.captions = CaptionsFile(self.folder / CAPTIONS)
        if self.captions.entries != self.manifest.stored_entries:
            raise DatastoreError(f"{self.folder / CAPTIONS} does not fit its manifest: build it again")
        self.deleted: npt.NDArray[np.int64] = np.empty(0, np.int64)  # numbers of entries, sorted
        if self.manifest.deleted is not None:
            self.deleted = read_deleted(
                self.folder / DELETED,
                entries=self.manifest.stored_entries,
                deleted=self.manifest.deleted.entries,
            )

    @property
    def readable_in_parts(self) -> bool:
        """Can some of its vectors be read without the whole index in memory?"""
        return self.manifest.index.kind in ("flat", "ivf-pq")

    def require_embedder(self, embedder: str, dimension: int) -> None:
        """Raises DatastoreError unless the vectors are of this embedder."""
        if (self.manifest.embedder, self.manifest.dimension) != (embedder, dimension):
            raise DatastoreError(
                f"the datastore {self.datastore} was built with the embedder {self.manifest.embedder} "
                f"({self.manifest.dimension} dimensions), not with {embedder} ({dimension}): vectors of two "
                "embedders cannot be in one datastore. Build it again with the one you use"
            )

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """The live entries with their numbers; sources are numbers in `captions.source_names()`."""
        deleted = iter([*self.deleted.tolist(), -1])
        skipped = next(deleted)
        for number, entry in enumerate(self.captions.read()):
            if number == skipped:
                skipped = next(deleted)
            else:
                yield number, entry

    def vectors(self, omitted: npt.NDArray[np.int64] | None = None) -> VersionVectors:
        """Of the live entries, without those omitted."""
        without = self.deleted if omitted is None else np.union1d(self.deleted, omitted)
        return VersionVectors(self.folder, self.manifest, without)
