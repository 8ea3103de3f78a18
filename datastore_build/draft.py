"""The folder in which a version is made: whose it is, whether its build still runs, and how far it came.

    versions/.tmp-<process>-<random>/
      lock          held while the build runs; it goes with the process, however that ends
      state.json    what is built, and what of it is done
      version/      what will be published
      shards/       vectors, see shards.py
      lists/        of what an index with lists is made, see list_blocks.py

A draft is removed when its build is done or has failed early. One that holds vectors stays, for they took
the time; --resume goes on with it, and any other build removes it.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from datastore_build.build_state import BuildPlan, BuildState
from retrieval.disk import sync, write_synced
from retrieval.errors import DatastoreError
from retrieval.manifest import VERSIONS

_PREFIX = ".tmp-"
_STATE, _LOCK = "state.json", "lock"


class Draft:
    """A locked draft. Raises OSError: the datastore cannot be written."""

    def __init__(self, root: Path, lock: TextIO, state: BuildState) -> None:
        self.root = root
        self.folder = root / "version"
        self.shards = root / "shards"
        self.lists = root / "lists"
        self.state = state
        self._lock = lock

    def save_state(self, state: BuildState) -> None:
        temporary = self.root / f"{_STATE}.partial"
        write_synced(temporary, state.model_dump_json(indent=2) + "\n")
        temporary.replace(self.root / _STATE)
        sync(self.root)
        self.state = state

    @property
    def holds_vectors(self) -> bool:
        return any(self.shards.glob("shard-*.f32"))

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def unlock(self) -> None:
        self._lock.close()


@contextmanager
def open_draft(
    datastore: Path, plan: BuildPlan | None, *, resume: bool, clean: bool = True
) -> Iterator[tuple[Draft, list[str]]]:
    """A draft for this plan, and what leftovers of dead builds were removed, to be told.

    plan: None for what cannot be resumed. resume: takes up the draft of a build that died; if there is none,
    begins anew. clean: removes the others. Raises DatastoreError if what died was another build, OSError.
    """
    new_folders = [path for path in (datastore / VERSIONS, datastore) if not path.exists()]
    draft: Draft | None = None
    removed: list[str] = []
    dead = _dead_drafts(datastore) if clean else []
    try:
        if resume and plan is not None:
            draft = _matching(dead, plan)
        for leftover in dead:
            if leftover is not draft:
                removed.append(f"{leftover.root} ({_size(leftover.root):,} bytes)")
                leftover.remove()
        if draft is None:
            draft = _create(datastore, plan)
    except BaseException:
        _remove_empty(new_folders)
        raise
    finally:
        for leftover in dead:
            if leftover is not draft:
                leftover.unlock()
    keep = False
    try:
        yield draft, removed
    except BaseException:
        keep = draft.holds_vectors
        raise
    finally:
        if not keep:
            draft.remove()
        draft.unlock()
        _remove_empty(new_folders)


def is_running(draft: Path) -> bool:
    """Does a build still hold this draft? Its folder must be left alone then."""
    lock = _lock(draft)
    if lock is None:
        return True
    lock.close()
    return False


def _create(datastore: Path, plan: BuildPlan | None) -> Draft:
    while True:
        root = datastore / VERSIONS / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        root.mkdir(parents=True)
        lock = _lock(root)
        if lock is not None:
            break  # else another build took it for a leftover in the moment it was not locked
    draft = Draft(root, lock, BuildState(plan=plan))
    try:
        draft.folder.mkdir()
        draft.save_state(draft.state)
    except BaseException:
        draft.remove()
        draft.unlock()
        raise
    return draft


def _lock(root: Path) -> TextIO | None:
    """The locked file, None if another process has it."""
    path = root / _LOCK
    try:
        lock = path.open("a")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            return lock
    except OSError:  # held, or removed in the meantime
        pass
    lock.close()
    return None


def _dead_drafts(datastore: Path) -> list[Draft]:
    """The locked drafts of builds that run no longer, the latest last."""
    folders = [path for path in (datastore / VERSIONS).glob(f"{_PREFIX}*") if path.is_dir()]
    drafts = []
    for root in sorted(folders, key=lambda path: path.stat().st_mtime):
        lock = _lock(root)
        if lock is not None:
            drafts.append(Draft(root, lock, _read_state(root)))
    return drafts


def _read_state(root: Path) -> BuildState:
    try:
        return BuildState.model_validate_json((root / _STATE).read_bytes())
    except (OSError, ValidationError):
        return BuildState(plan=None)  # it died before it had one, or another release wrote it


def _matching(dead: list[Draft], plan: BuildPlan) -> Draft | None:
    """The draft of this plan, None if no build died. Raises DatastoreError."""
    for draft in reversed(dead):
        if draft.state.plan == plan:
            return draft
    for draft in reversed(dead):
        if draft.holds_vectors and draft.state.plan is not None:
            differences = ", ".join(draft.state.plan.differences(plan))
            raise DatastoreError(
                f"cannot resume {draft.root}: that build had other {differences}. Give what it was given, or "
                "leave out --resume to begin anew"
            )
    return None


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        with suppress(OSError):  # not empty: it was published, or someone else builds here
            path.rmdir()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
