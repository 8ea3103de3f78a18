"""A finished version takes its place: all of it or nothing, whenever the power goes.

Order: files to disk, manifest last, folder renamed to its version's name, CURRENT replaced. A reader sees the
old version or the new one. What the files hold is not known here.
"""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import faiss

from retrieval.activation import activate, version_folders
from retrieval.disk import sync, write_synced
from retrieval.errors import DatastoreError
from retrieval.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    VERSIONS,
    Counts,
    DeletedCounts,
    IndexSettings,
    Manifest,
    SourceRecord,
    content_hash,
    describe_file,
    read_manifest,
    verify_files,
)


def publish(
    datastore: Path,
    folder: Path,
    *,
    embedder: str,
    dimension: int,
    index: IndexSettings,
    counts: Counts,
    sources: Sequence[SourceRecord],
    deleted: DeletedCounts | None = None,
    replacing: str | None = None,
) -> tuple[Manifest, bool]:
    """Makes a folder of finished files, on the same disk, a version of the datastore and the live one.

    If a version with the same content is there already, undamaged, that one becomes live instead and the
    second value is True. replacing: the version that this one was made from. Raises DatastoreError, with
    nothing published, if that is not the live one any more, and OSError.
    """
    files = {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    content = content_hash(embedder, dimension, index, files)
    existing = _version_with(datastore, content)
    if existing is not None:
        activate(datastore, existing.version, replacing=replacing)
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
        deleted=deleted,
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
        sync(folder / name)
    write_synced(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    sync(folder)
    version = datastore / VERSIONS / manifest.version
    folder.rename(version)
    try:
        sync(datastore / VERSIONS)
        activate(datastore, manifest.version, replacing=replacing)
    except DatastoreError:
        shutil.rmtree(version, ignore_errors=True)
        raise
    except OSError:  # the disk is full: back to the draft, whose build may be resumed
        version.rename(folder)
        raise
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
