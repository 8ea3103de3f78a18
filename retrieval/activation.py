"""Which version is live, and which were before: CURRENT and HISTORY are written here.

HISTORY has a line of JSON for each time a version became live, the oldest first, so that `rollback` knows
where to go back to. What the versions hold is not known here.
"""

import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from retrieval.disk import sync, write_synced
from retrieval.errors import DatastoreError
from retrieval.files import open_regular
from retrieval.manifest import CURRENT, MANIFEST, VERSIONS, live_version, named_version
from retrieval.version_lock import exclusively

HISTORY = "HISTORY"
_MOST_EVENTS = 1000
_LARGEST_HISTORY = 4 * 2**20  # bytes


@dataclass(frozen=True)
class Event:
    """A version became live."""

    version: str
    at: str  # ISO 8601, UTC
    how: Literal["activate", "rollback"]


def activate(
    datastore: Path,
    version: str,
    how: Literal["activate", "rollback"] = "activate",
    *,
    replacing: str | None = None,
) -> str | None:
    """Replaces CURRENT; returns the version that was live.

    To activate the live version changes nothing. Raises DatastoreError, also if not the version `replacing`
    is live but another one, and OSError.
    """
    with exclusively(datastore, wait=True):
        if replacing is not None and live_version(datastore).name not in (replacing, version):
            raise DatastoreError(
                f"another version of {datastore} became live meanwhile, and what it changed would be lost: "
                "run the command again"
            )
        return _activate(datastore, version, how)


def rollback(datastore: Path) -> tuple[str, str]:
    """Makes the version live that was so before; returns the one given up and the one that is live now.

    Called again, it goes back further. Raises DatastoreError if there is none, or OSError.
    """
    live_version(datastore)  # a clear error for what is no datastore
    with exclusively(datastore, wait=True):
        live = live_version(datastore).name
        before = versions_before(datastore, live)
        if not before:
            raise DatastoreError(
                f"{datastore}: no version was live before {live}, or none of those is kept: "
                "nothing was changed"
            )
        _activate(datastore, before[0], "rollback")
    return live, before[0]


def version_folders(datastore: Path) -> list[Path]:
    """The published versions, oldest first; drafts are not among them."""
    return sorted(path.parent for path in (datastore / VERSIONS).glob(f"[!.]*/{MANIFEST}"))


def versions_before(datastore: Path, live: str) -> list[str]:
    """Where `rollback` would go from the version `live`: now, if called again, and so on.

    Those that were live before it and are still there; then what was published before the last of these, as
    datastores may be older than their HISTORY.
    """
    kept = [folder.name for folder in version_folders(datastore)]
    found = [name for name in reversed(_undone(read_history(datastore), live)) if name in kept]
    found = [name for name in dict.fromkeys(found) if name != live]
    oldest = min([live, *found])
    return found + [name for name in reversed(kept) if name < oldest]


def read_history(datastore: Path) -> list[Event]:
    """What became live, the oldest first. Lines that are none are left out. Raises OSError."""
    try:
        with open_regular(datastore / HISTORY) as file:
            content = file.read(_LARGEST_HISTORY)
    except FileNotFoundError:
        return []
    events = []
    for line in content.splitlines():
        with suppress(ValueError, TypeError, RecursionError):
            event = Event(**json.loads(line))
            if isinstance(event.version, str) and event.how in ("activate", "rollback"):
                events.append(event)
    return events


def _undone(events: Sequence[Event], live: str) -> list[str]:
    """The versions that were live before `live`, the oldest first, when rollbacks are taken back."""
    stack: list[str] = []
    for event in events:
        if event.how == "rollback" and event.version in stack:
            while stack[-1] != event.version:
                stack.pop()
        elif stack[-1:] != [event.version]:
            stack.append(event.version)
    if live in stack:  # else CURRENT was written by hand, or before there was a HISTORY
        while stack[-1] != live:
            stack.pop()
        stack.pop()
    return stack


def _activate(datastore: Path, version: str, how: Literal["activate", "rollback"]) -> str | None:
    named_version(datastore, version)
    try:
        live: str | None = live_version(datastore).name
    except DatastoreError:  # the first one, or CURRENT is damaged
        live = None
    if live == version:
        return live
    if live is not None:  # else there is nothing to go back to, and CURRENT tells all
        events = read_history(datastore)
        if not events or events[-1].version != live:
            events.append(Event(live, _iso((datastore / CURRENT).stat().st_mtime), "activate"))
        events.append(Event(version, _iso(time.time()), how))
        lines = [json.dumps(asdict(event)) for event in events[-_MOST_EVENTS:]]
        # Before CURRENT, because what is live must be in it: `_undone` forgets what comes after that.
        _replace(datastore / HISTORY, "".join(f"{line}\n" for line in lines))
    _replace(datastore / CURRENT, f"{version}\n")
    return live


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _replace(path: Path, text: str) -> None:
    """The file has the old text or the new one, whenever the power goes. Raises OSError."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_synced(temporary, text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
