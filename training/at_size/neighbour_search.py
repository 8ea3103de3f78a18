"""The nearest captions of many photos, exactly: in blocks, so that memory does not grow with their number.

What was found so far is saved after each block. Photos and captions are L2-normalised vectors of one space.
"""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from training.at_size.caption_vectors import CaptionVectors
from training.files import save_tensors

BLOCK_SHARDS = 8  # 65,536 captions: 134 MB of 512 dimensions
NOTHING = -1


def search_captions(
    photos: NDArray[np.float32],
    captions: CaptionVectors,
    k: int,
    saved: Path,
    *,
    block_shards: int = BLOCK_SHARDS,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.int64]:
    """Rows (P, k) of the captions with the largest inner products, best first, NOTHING behind the last.

    Args:
        photos: (P, E).
        saved: what was found so far; if the file is there, the search goes on from it.
        progress: called with the shards done so far.
    """
    scores = np.full((len(photos), k), -np.inf, dtype=np.float32)
    rows = np.full((len(photos), k), NOTHING, dtype=np.int64)
    first_shard = first_row = 0
    if saved.exists():
        state = load_file(saved)
        scores, rows = state["scores"].numpy(), state["rows"].numpy()
        first_shard, first_row = state["next"].tolist()
    progress(first_shard)
    while first_shard < captions.shards:
        block = captions.read(first_shard, block_shards)
        found_scores, found = faiss.knn(photos, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, found_scores], axis=1)
        rows = np.concatenate([rows, found + first_row], axis=1)
        best = np.lexsort((rows, -scores), axis=1)[:, :k]  # of equal scores, the caption that comes first
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        first_shard, first_row = min(first_shard + block_shards, captions.shards), first_row + len(block)
        save_tensors(
            {
                "scores": torch.from_numpy(scores),
                "rows": torch.from_numpy(rows),
                "next": torch.tensor([first_shard, first_row]),
            },
            saved,
        )
        progress(first_shard)
    return rows


def drop_own(
    rows: NDArray[np.int64], owners: NDArray[np.int64], photos: NDArray[np.int64], keep: int
) -> NDArray[np.int64]:
    """The first `keep` rows of each photo (P, keep) that are not captions of the photo itself.

    Args:
        rows: (P, k) captions found, best first.
        owners: (N,) the photo of each caption.
        photos: (P,) what each photo is called in `owners`.
    """
    own = (rows == NOTHING) | (owners[rows] == photos[:, None])
    others_first = np.argsort(own, axis=1, kind="stable")
    kept = np.take_along_axis(np.where(own, NOTHING, rows), others_first, 1)[:, :keep]
    padding = np.full((len(kept), max(0, keep - kept.shape[1])), NOTHING)
    return np.concatenate([kept, padding], axis=1)
