"""Builds that are killed, each at a moment of its own: a program for tests/test_datastore_build_resume.py.

    python killed_builds.py SOURCE FOLDER build|add|KIND MOMENT...

Every build is a process of its own, forked from this one, and ends by SIGKILL in FOLDER/<name of the moment>.
Prints the names of the moments that were not reached. add: the folders hold datastores that are added to.
KIND: the index to build; without it, the size decides.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hashing_embedder import HashingEmbedder

from datastore_build import build, draft, noted_files, publish, shards, staging
from datastore_build.indexes import flat as flat_index
from datastore_build.indexes import indexing, list_blocks, list_training
from datastore_build.part import Part
from datastore_build.report import BuildProgress
from datastore_build.writer import CaptionsWriter
from retrieval.manifest import IndexRequest

SHARD_ENTRIES = 150
BLOCK_BYTES = 200 * 4 * 256  # of vectors put into lists at once: three blocks
OPTIONS: dict[str, Any] = {"near_duplicates": "drop", "shard_entries": SHARD_ENTRIES}

# name → (module or class, function, which call, before or after it)
MOMENTS: dict[str, tuple[Any, str, int, str]] = {
    "draft-made": (draft, "_create", 1, "after"),
    "state-half-written": (draft, "write_synced", 1, "after"),
    "reading-begun": (CaptionsWriter, "add", 1, "after"),
    "reading": (CaptionsWriter, "add", 2, "after"),
    "captions-written": (CaptionsWriter, "finish", 1, "after"),
    "duplicates-found": (staging, "find_near_duplicates", 1, "after"),
    "duplicates-half-left-out": (CaptionsWriter, "finish", 2, "before"),
    "staged": (draft.Draft, "save_state", 2, "before"),
    "staged-and-noted": (draft.Draft, "save_state", 2, "after"),
    "first-shard": (shards.EmbeddingShards, "store", 1, "before"),
    "shard-written": (noted_files, "sync", 2, "before"),
    "shard-renamed": (noted_files, "sync", 2, "after"),
    "shard-noted": (shards.EmbeddingShards, "note", 2, "after"),
    "last-shard": (shards.EmbeddingShards, "note", 4, "after"),
    "all-embedded": (build, "build_index", 1, "before"),
    "indexed": (build, "build_index", 1, "after"),
    "exact-index-begun": (indexing, "write_flat_index", 1, "before"),
    "exact-index-half-written": (flat_index, "_header", 1, "after"),
    "exact-index-written": (indexing, "write_flat_index", 1, "after"),
    "half-trained": (list_training, "_keep", 1, "after"),
    "trained": (list_training, "_keep", 2, "after"),
    "block-made": (list_blocks.ListBlocks, "_make", 3, "after"),
    "blocks-made": (indexing, "fill_lists", 1, "before"),
    "lists-filled": (indexing, "fill_lists", 1, "after"),
    "index-half-made": (indexing, "_write", 1, "before"),
    "index-written": (indexing, "_write", 1, "after"),
    "tuned": (indexing, "tune", 1, "after"),
    "hashed": (publish, "describe_file", 2, "after"),
    "manifest-written": (publish, "write_synced", 1, "after"),
    "renamed": (publish, "activate", 1, "before"),
    "live": (publish, "activate", 1, "after"),
    "in-a-window": (HashingEmbedder, "embed_texts", 2, "before"),
}
OF_GRAPHS = ("index-half-made", "index-written", "tuned")
OF_LISTS = ("half-trained", "trained", "block-made", "blocks-made", "lists-filled", *OF_GRAPHS)
SOME_OF_LISTS = ("trained", "block-made", "tuned")  # where a build takes long
# Of the reports of progress, these.
MOMENTS_OF_PROGRESS = (2, 3, 5, 7, 8, 10)


def kill_at(target: Any, name: str, call: int, when: str) -> None:
    original = getattr(target, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, counted)


def kill_at_progress(call: int) -> Callable[[BuildProgress], None]:
    calls = 0

    def on_progress(progress: BuildProgress) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


def names() -> list[str]:
    """Of moments that a build with an exact index comes to."""
    return [
        *(name for name in MOMENTS if name not in OF_LISTS),
        *(f"progress-{number}" for number in MOMENTS_OF_PROGRESS),
    ]


def run(source: Path, output: Path, name: str, command: str) -> None:
    on_progress = None
    if name in MOMENTS:
        kill_at(*MOMENTS[name])
    else:
        on_progress = kill_at_progress(int(name.partition("-")[2]))
    base = Part(output) if command == "add" else None
    index = None if command in ("add", "build") else IndexRequest.model_validate({"kind": command})
    embedder = HashingEmbedder()
    setattr(indexing, "_BLOCK_BYTES", BLOCK_BYTES)  # noqa: B010
    build.build_datastore(
        [source], output, embedder, index=index, base=base, on_progress=on_progress, **OPTIONS
    )


def main() -> None:
    source, folder, command = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for name in sys.argv[4:]:
        child = os.fork()
        if child == 0:
            try:
                run(source, folder / name, name, command)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
