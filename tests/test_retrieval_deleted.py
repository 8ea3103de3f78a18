from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from retrieval.deleted import LiveIndex, read_deleted
from retrieval.errors import DatastoreError
from retrieval.index import VectorIndex


def _vectors(rows: int, seed: int) -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, 8))
    vectors: npt.NDArray[np.float32] = drawn.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _index(vectors: npt.NDArray[np.float32]) -> VectorIndex:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return VectorIndex(index)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_searching_without_the_deleted_equals_searching_an_index_without_them(share: float) -> None:
    vectors, queries = _vectors(500, 0), _vectors(20, 1)
    deleted = np.flatnonzero(np.random.default_rng(2).random(500) < share)
    kept = np.setdiff1d(np.arange(500), deleted)
    live = LiveIndex(_index(vectors), deleted)
    assert live.entries == len(kept)
    for k in (1, 7, 600):
        scores, entries = live.search(queries, k)
        expected_scores, expected = _index(vectors[kept]).search(queries, k)
        assert np.array_equal(entries, kept[expected])
        assert np.array_equal(scores, expected_scores)


def test_the_nearest_of_all_may_be_deleted() -> None:
    vectors = _vectors(400, 0)
    order = np.argsort(-(vectors @ vectors[0]), kind="stable")
    live = LiveIndex(_index(vectors), np.sort(order[:300]))
    assert live.search(vectors[:1], 3)[1][0].tolist() == order[300:303].tolist()


def test_no_queries_give_no_answers() -> None:
    live = LiveIndex(_index(_vectors(4, 0)), np.array([1]))
    assert live.search(np.empty((0, 8), np.float32), 3)[1].shape == (0, 0)


@pytest.mark.parametrize(
    "numbers",
    [
        np.array([3, 1]),
        np.array([1, 1]),
        np.array([-1, 1]),
        np.array([1, 10]),
        np.array([1]),
        np.array([1.0, 2.0]),
        np.array([[1, 2]]),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, numbers: npt.NDArray[np.int64]) -> None:
    np.save(tmp_path / "deleted.npy", numbers)
    with pytest.raises(DatastoreError, match=r"does not hold the 2 entries"):
        read_deleted(tmp_path / "deleted.npy", entries=10, deleted=2)


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deleted.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(DatastoreError, match="damaged"):
        read_deleted(tmp_path / "deleted.npy", entries=10, deleted=2)
