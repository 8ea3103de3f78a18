from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.errors import DatastoreError
from retrieval.index import VectorIndex


def _vectors(count: int, dimension: int = 16) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    vectors = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    normalised: np.ndarray[tuple[int, int], np.dtype[np.float32]] = vectors / np.linalg.norm(
        vectors, axis=1, keepdims=True
    )
    return normalised


def _flat(path: Path, count: int = 50, dimension: int = 16) -> Path:
    index = faiss.IndexFlatIP(dimension)
    index.add(_vectors(count, dimension))
    faiss.write_index(index, str(path))
    return path


def test_a_query_gets_the_same_answer_alone_and_in_a_batch(tmp_path: Path) -> None:
    index = VectorIndex.read(_flat(tmp_path / "i", 300), dimension=16, entries=300)
    queries = _vectors(40)
    scores, entries = index.search(queries, 10)
    for row, query in enumerate(queries):
        single_scores, single_entries = index.search(query[None], 10)
        assert np.array_equal(single_scores[0], scores[row])
        assert np.array_equal(single_entries[0], entries[row])


def test_search_equals_sorting_all_scores(tmp_path: Path) -> None:
    index = VectorIndex.read(_flat(tmp_path / "i", 300), dimension=16, entries=300)
    queries = _vectors(5)
    _, entries = index.search(queries, 7)
    assert np.array_equal(entries, np.argsort(-(queries @ _vectors(300).T), axis=1)[:, :7])


def test_ties_come_in_the_order_of_the_entries() -> None:
    index = faiss.IndexFlatIP(2)
    index.add(np.array([[0, 1], [1, 0], [1, 0], [0, 1], [1, 0]], np.float32))
    _, entries = VectorIndex(index).search(np.array([[1, 0]], np.float32), 5)
    assert entries.tolist() == [[1, 2, 4, 0, 3]]


@pytest.mark.parametrize("kind", ["Flat,l2", "HNSW8", "IDMap,Flat", "PQ4x4", "garbage", "empty"])
def test_other_index_types_are_refused_before_they_are_parsed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "index"
    if kind == "garbage":
        path.write_bytes(b"IxZZ" + b"\xff" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        metric = faiss.METRIC_L2 if kind.endswith("l2") else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(16, kind.removesuffix(",l2"), metric)
        index.train(_vectors(300))
        faiss.write_index(index, str(path))
    with pytest.raises(DatastoreError, match="build it again"):
        VectorIndex.read(path, dimension=16, entries=0)


@pytest.mark.parametrize("size", [4, 20, 45, 500, -1])
def test_a_truncated_index_is_refused(tmp_path: Path, size: int) -> None:
    path = _flat(tmp_path / "index")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DatastoreError, match="damaged"):
        VectorIndex.read(path, dimension=16, entries=50)


def test_a_header_that_announces_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = _flat(tmp_path / "index")
    content = bytearray(path.read_bytes())
    content[37:45] = (2**40).to_bytes(8, "little")  # the vector's length
    path.write_bytes(content)
    with pytest.raises(DatastoreError, match="damaged"):
        VectorIndex.read(path, dimension=16, entries=50)


def test_an_index_of_another_size_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    path = _flat(tmp_path / "index")
    with pytest.raises(DatastoreError, match="50 vectors of 16 dimensions"):
        VectorIndex.read(path, dimension=16, entries=51)
    with pytest.raises(DatastoreError, match="50 vectors of 16 dimensions"):
        VectorIndex.read(path, dimension=32, entries=50)
