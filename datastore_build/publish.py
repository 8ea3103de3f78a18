"""A finished version takes its place: all of it or nothing, whenever the power goes.

Order: files to disk, manifest last, folder renamed to its version's name, CURRENT replaced. A reader sees the
old version or the new one. What the files hold is not known here.
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import Self

import faiss

from datastore_build.activation import activate, sync, version_folders, write_synced
from retrieval.errors import DatastoreError
from retrieval.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    VERSIONS,
    Counts,
    IndexSettings,
    Manifest,
    SourceRecord,
    content_hash,
    describe_file,
    read_manifest,
    verify_files,
)


class Draft:
    """A folder beside the versions in which one is made; it is removed unless it is published.

    Raises OSError: the datastore cannot be written.
    """

    def __init__(self, datastore: Path) -> None:
        self._datastore = datastore
        self.folder = datastore / VERSIONS / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self._new_folders = [path for path in (self.folder.parent, self._datastore) if not path.exists()]
        self.folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._new_folders:
            with suppress(OSError):  # not empty: it was published, or someone else builds here
                path.rmdir()

    def publish(
        self,
        *,
        embedder: str,
        dimension: int,
        index: IndexSettings,
        counts: Counts,
        sources: Sequence[SourceRecord],
    ) -> tuple[Manifest, bool]:
        """Makes the draft a version and the live one.

        If a version with the same content is there already, undamaged, that one becomes live instead and the
        second value is True. Raises OSError.
        """
        files = {path.name: describe_file(path) for path in sorted(self.folder.iterdir())}
        content = content_hash(embedder, dimension, index, files)
        existing = _version_with(self._datastore, content)
        if existing is not None:
            activate(self._datastore, existing.version)
            return existing, True
        created = datetime.now(UTC)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            # Sorts by time; the hash tells apart what two machines published in one millisecond.
            version=f"{created:%Y%m%dT%H%M%S}.{created.microsecond // 1000:03d}Z-{content[:12]}",
            embedder=embedder,
            dimension=dimension,
            metric="inner_product",
            counts=counts,
            index=index,
            faiss_version=str(faiss.__version__),
            created=created.isoformat(timespec="milliseconds"),
            tool_version=_tool_version(),
            sources=tuple(sources),
            files=files,
            content_sha256=content,
            complete=True,
        )
        for name in files:
            sync(self.folder / name)
        write_synced(self.folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        sync(self.folder)
        self.folder.rename(self._datastore / VERSIONS / manifest.version)
        sync(self._datastore / VERSIONS)
        activate(self._datastore, manifest.version)
        return manifest, False


def _version_with(datastore: Path, content: str) -> Manifest | None:
    for folder in reversed(version_folders(datastore)):
        if folder.name.endswith(content[:12]):
            try:
                manifest = read_manifest(folder)
                verify_files(folder, manifest)
            except DatastoreError:
                continue  # a damaged one is not published again
            if manifest.content_sha256 == content and manifest.version == folder.name:
                return manifest
    return None


def _tool_version() -> str:
    try:
        return installed_version("paellera")
    except PackageNotFoundError:  # run from a checkout
        return "0+unknown"
