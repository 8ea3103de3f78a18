"""Photos being encoded and captions being searched, each run killed at a moment of its own: a program for
tests/test_training_features_hub.py and tests/test_training_at_size_neighbours.py, which call `kill_runs`.

    python killed_training_data.py MODEL FOLDER FEATURES MOMENT...

MODEL is a tiny CLIP, FOLDER has the files of tests/coco_files.py. Every run is a process of its own, forked
from this one, and ends by SIGKILL; what it wrote is in FOLDER/<name of the moment>. FEATURES are finished
ones, for the searches. Prints the names of the moments that were not reached.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from killed_builds import kill_at
from rich.console import Console

from models.text.hub import load_hub_text
from retrieval.image_text import ImageTextEmbedder
from training import features, files
from training.at_size import neighbour_search, neighbours
from training.at_size.karpathy import read_karpathy_photos
from training.at_size.neighbour_file import Neighbours
from training.at_size.rejects import Rejects
from training.feature_cache import FeatureCache
from training.photo_encoders import HubPhotoEncoder, hub_encoder_id

QUIET = Console(quiet=True)
SHARD_PHOTOS, BATCH_PHOTOS = 4, 2
SHARD_CAPTIONS, BLOCK_SHARDS = 2, 2

# name → (module or class, function, which call, before or after it)
FEATURE_MOMENTS: dict[str, tuple[Any, str, int, str]] = {
    "batch-encoded": (features, "_as_stored", 3, "after"),
    "shard-half-written": (files, "save_file", 2, "half"),
    "shard-written": (files, "save_file", 2, "after"),
    "shard-renamed": (features, "save_tensors", 2, "after"),
    "shard-noted": (features, "write_index", 2, "after"),
}
SEARCH_MOMENTS: dict[str, tuple[Any, str, int, str]] = {
    "captions-embedded": (ImageTextEmbedder, "embed_texts", 3, "after"),
    "vectors-half-written": (np, "save", 3, "half"),
    "first-block": (neighbour_search, "save_tensors", 1, "before"),
    "block-half-noted": (files, "save_file", 2, "half"),
    "block-noted": (neighbour_search, "save_tensors", 2, "after"),
    "all-searched": (neighbours, "write_neighbours", 1, "before"),
    "file-written": (neighbours, "write_neighbours", 1, "after"),
}


def extract(model: Path, folder: Path, output: Path) -> int:
    """Encode the training photos of the folder in shards of a few. Returns how many were encoded now."""
    with Rejects() as rejects:
        photos = read_karpathy_photos(folder / "dataset_coco.json", folder / "images", rejects)
    return features.extract(
        photos,
        folder / "images",
        output,
        HubPhotoEncoder(model),
        shard_size=SHARD_PHOTOS,
        batch_size=BATCH_PHOTOS,
        console=QUIET,
    )


def search(model: Path, folder: Path, cache: Path, output: Path, **options: Any) -> Neighbours:
    """Retrieve for the training photos of the folder, in blocks of a few."""
    encoder_id = hub_encoder_id(model)
    with Rejects() as rejects:
        captions = neighbours.read_english_captions(folder / "dataset_coco.json", rejects)
    return neighbours.find_neighbours(
        captions,
        FeatureCache(cache, encoder_id),
        ImageTextEmbedder(encoder_id, 24, lambda: load_hub_text(model)),
        output,
        shard_captions=SHARD_CAPTIONS,
        block_shards=BLOCK_SHARDS,
        console=QUIET,
        **options,
    )


def kill_runs(model: Path, folder: Path, cache: Path, moments: Iterable[str]) -> None:
    """Begin a run for each moment, in another process, and have it killed there."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = f"import sys; sys.path[:0] = {paths!r}; import killed_training_data; killed_training_data.main()"
    arguments = [sys.executable, "-c", code, *map(str, (model, folder, cache)), *moments]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def kill_in_the_middle_of(target: Any, name: str, call: int) -> None:
    """Of a call that writes a file: with half of its bytes on the disk."""
    original: Callable[..., Any] = getattr(target, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments, **options)
        if calls == call:
            file = next(a for a in arguments if hasattr(a, "write") or isinstance(a, Path))
            if not isinstance(file, Path):
                file.flush()
            path = Path(file if isinstance(file, Path) else file.name)
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, counted)


def main() -> None:
    model, folder, cache = (Path(argument) for argument in sys.argv[1:4])
    torch.set_num_threads(1)  # threads do not survive a fork
    HubPhotoEncoder(model)  # so that the libraries are imported once
    for name in sys.argv[4:]:
        child = os.fork()
        if child == 0:
            try:
                target, function, call, when = (FEATURE_MOMENTS | SEARCH_MOMENTS)[name]
                if when == "half":
                    kill_in_the_middle_of(target, function, call)
                else:
                    kill_at(target, function, call, when)
                if name in FEATURE_MOMENTS:
                    extract(model, folder, folder / name)
                else:
                    search(model, folder, cache, folder / name / "neighbours.arrow")
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
