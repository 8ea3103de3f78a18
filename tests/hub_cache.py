"""A cache of the Hub as huggingface_hub keeps it, filled with models made here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `folder` the cache, and the network out of reach."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def refuse(*_: object) -> None:
        raise AssertionError("a connection, though everything is in the cache")

    monkeypatch.setattr("socket.socket.connect", refuse)


def add_to_cache(cache: Path, repo: str, save: Callable[[Path], Any], commit: str = COMMIT) -> Any:
    """Put what `save` writes into the cache as the `main` branch of a repository; returns what it returns."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    made = save(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    return made
