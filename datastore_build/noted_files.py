"""Files in a folder that are noted once they are whole: what was made stays made, whenever a build is killed.

A file is written under a temporary name, brought to the disk and renamed; then a line with its SHA-256 goes
into a log. Any process that sees the folder may store files; the log is written by one alone. The module does
not know what is in them.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from retrieval.disk import sync
from retrieval.files import replacing

_LOG = "whole.jsonl"


class NotedFiles:
    """A folder, which is made if it is not there. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def store(self, name: str, contents: Iterable[bytes | memoryview]) -> str:
        """Brings a file to the disk; its SHA-256, which is to be noted. The same file may be stored twice,
        even by two processes at once."""
        digest = hashlib.sha256()
        with replacing(self.path(name), unique=True) as path, path.open("wb") as file:
            for content in contents:
                file.write(content)
                digest.update(content)
        sync(self.folder)
        return digest.hexdigest()

    def note(self, name: str, sha: str) -> None:
        """Into the log: this file is stored."""
        with (self.folder / _LOG).open("a", encoding="ascii") as log:
            log.write(json.dumps({"file": name, "sha256": sha}) + "\n")
            log.flush()
            os.fsync(log.fileno())

    def forget(self) -> None:
        """All that is noted: nothing is whole any more."""
        (self.folder / _LOG).unlink(missing_ok=True)
        sync(self.folder)

    def whole(self) -> set[str]:
        """The names of those that are noted and undamaged."""
        return {name for name, sha in self._read_log().items() if self._intact(name, sha)}

    def _intact(self, name: str, sha: str) -> bool:
        try:
            with self.path(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha
        except OSError:
            return False

    def _read_log(self) -> dict[str, str]:
        try:
            lines = (self.folder / _LOG).read_text("ascii", "replace").splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        noted: dict[str, str] = {}
        for line in lines:
            try:
                record = json.loads(line)
                noted[str(record["file"])] = str(record["sha256"])
            except (ValueError, TypeError, KeyError):
                continue  # cut short when the build was killed
        if lines and not lines[-1].endswith("\n"):
            with (self.folder / _LOG).open("a", encoding="ascii") as log:
                log.write("\n")  # so that the next line does not become part of it
        return noted
