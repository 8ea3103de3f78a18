"""Files of the Hub that are in this machine's cache: found by repository and commit, and verified.

Nothing is fetched here. The cache is that of huggingface_hub ($HF_HUB_CACHE).
"""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.manifest import FileRecord, HubReference, record_file
from retrieval.errors import BundleError


def hub_library() -> Any:
    """The module `huggingface_hub`, with its `constants` and `errors`.

    Raises:
        BundleError: it is not installed.
    """
    try:
        for part in ("constants", "errors"):  # which it does not bring along by itself
            importlib.import_module(f"huggingface_hub.{part}")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise BundleError("parts from the Hub need huggingface-hub: pip install 'paellera[hub]'") from error


def cached_file(repo: str, name: str, revision: str) -> Path | None:
    """A file of a repository if it is in the cache; `revision` may be a commit or the name of a branch."""
    found = hub_library().try_to_load_from_cache(repo, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def verified_folder(reference: HubReference) -> Path:
    """The folder with the files of a reference, each of which has the size and hash that it should have.

    Raises:
        BundleError: a file is not in the cache, or is another.
    """
    folders = set()
    for name, expected in reference.files.items():
        path = cached_file(reference.repo, name, reference.revision)
        where = f"{reference.repo} at {reference.revision[:12]}"
        if path is None:
            raise BundleError(f"{name} of {where} is not in the cache: fetch it with paellera bundle pull")
        if path.stat().st_size != expected.bytes or _record(path) != expected:
            raise BundleError(
                f"{path} is damaged (its SHA-256 is not the manifest's): delete it, then paellera bundle pull"
            )
        folders.add(path.parents[name.count("/")])
    (folder,) = folders
    return folder


def _record(path: Path) -> FileRecord:
    """Size and hash. Parts share repositories, whose gigabytes are read once while nothing changes them."""
    seen = path.stat()
    return _record_as_of(path.resolve(), seen.st_ino, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=256)
def _record_as_of(path: Path, inode: int, size: int, modified_ns: int) -> FileRecord:
    return record_file(path)
