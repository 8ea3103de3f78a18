"""Removes versions that are not needed any more: `paellera datastore gc`.

Kept are the live version, the last ones before it (where `rollback` goes), those that were published after
it and never were live (somebody is about to activate them), and those that somebody is opening. A version
that is open already may go: its files stay readable until they are closed. Drafts are left alone; they are
the builder's.
"""

import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from retrieval.activation import read_history, version_folders, versions_before
from retrieval.errors import DatastoreError
from retrieval.manifest import VERSIONS, live_version
from retrieval.version_lock import exclusively

_REMOVED = ".gc-"  # beginning of the name of a folder that is being removed


@dataclass(frozen=True)
class Garbage:
    """A version and what became of it."""

    version: str
    bytes: int
    state: str  # "live", "kept", "being opened", "removed", or "would be removed"


@dataclass(frozen=True)
class Collection:
    """What one run did. The JSON of `gc --json` is this."""

    versions: tuple[Garbage, ...]  # the oldest first
    freed: int  # bytes, of what an earlier run left half removed, too; with dry_run: that would be
    dry_run: bool


def collect_garbage(datastore: Path, *, keep: int = 1, dry_run: bool = False) -> Collection:
    """Removes all versions but the live one, `keep` before it, and those that are about to be used.

    Raises DatastoreError: there is no datastore, or a version cannot be removed.
    """
    live_version(datastore)  # a clear error for what is no datastore
    try:
        with exclusively(datastore, wait=True):  # nothing becomes live meanwhile
            versions = _sort(datastore, keep, dry_run)
        freed = sum(item.bytes for item in versions if item.state == "would be removed")
        for folder in (datastore / VERSIONS).glob(f"{_REMOVED}*"):
            freed += _size(folder)
            if not dry_run:
                with suppress(FileNotFoundError):  # another run removes it, too
                    shutil.rmtree(folder)
    except OSError as error:
        raise DatastoreError(
            f"cannot remove versions of {datastore}: {error.strerror or error} ({error.filename})"
        ) from None
    return Collection(tuple(versions), freed, dry_run)


def _sort(datastore: Path, keep: int, dry_run: bool) -> list[Garbage]:
    """Every version with its fate. What is to go has a hidden name then: nobody sees half of a version."""
    live = live_version(datastore).name
    been_live = {event.version for event in read_history(datastore)}
    needed = set(versions_before(datastore, live)[:keep])
    versions = []
    for folder in version_folders(datastore):
        size, state = _size(folder), "kept"
        if folder.name == live:
            state = "live"
        elif folder.name not in needed and (folder.name < live or folder.name in been_live):
            with exclusively(folder, wait=False) as ours:
                if not ours:
                    state = "being opened"
                elif dry_run:
                    state = "would be removed"
                else:
                    state = "removed"
                    hidden = folder.with_name(f"{_REMOVED}{secrets.token_hex(4)}-{folder.name}")
                    folder.rename(hidden)
        versions.append(Garbage(folder.name, size, state))
    return versions


def _size(folder: Path) -> int:
    """Bytes of the files."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another run removes it, too
            size += path.lstat().st_size if path.is_file() else 0
    return size
