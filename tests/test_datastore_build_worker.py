from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hashing_embedder import HashingEmbedder

from datastore_build.entries import Entry, EntryText
from datastore_build.worker import EmbeddingWorker


def _entry(*texts: str) -> Entry:
    return Entry("x", tuple(EntryText(str(number), text, 0) for number, text in enumerate(texts)))


def test_a_vector_is_the_normalised_mean_of_the_distinct_texts() -> None:
    embedder = HashingEmbedder()
    cat, dog = embedder.embed_texts(["a cat", "the big dog"])
    vectors = EmbeddingWorker(embedder)([_entry("a cat"), _entry("a cat", "the big dog", "a cat")])
    assert vectors.dtype == np.float32
    assert vectors[0] == pytest.approx(cat, abs=1e-6)
    assert vectors[1] == pytest.approx((cat + dog) / np.linalg.norm(cat + dog), abs=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)


def test_each_text_is_embedded_once_the_short_ones_first() -> None:
    embedder = HashingEmbedder()
    EmbeddingWorker(embedder)([_entry("ccc", "a"), _entry("bb"), _entry("a", "ccc")])
    assert embedder.batches == [["a", "bb", "ccc"]]


def test_batches_do_not_change_vectors() -> None:
    entries = [_entry(f"text {number}", f"and {number % 3}") for number in range(10)]
    worker = EmbeddingWorker(HashingEmbedder())
    assert np.array_equal(worker(entries), np.concatenate([worker([entry]) for entry in entries]))


def test_no_entries() -> None:
    assert EmbeddingWorker(HashingEmbedder(dimension=8))([]).shape == (0, 8)


class _FixedEmbedder(HashingEmbedder):
    def __init__(self, vectors: list[list[float]]) -> None:
        super().__init__(dimension=2)
        self._vectors = np.array(vectors, np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._vectors


def test_texts_that_cancel_out_leave_the_first() -> None:
    worker = EmbeddingWorker(_FixedEmbedder([[1, 0], [-1, 0]]))
    assert worker([_entry("a", "b")]).tolist() == [[1, 0]]


@pytest.mark.parametrize("vectors", [[[1.0, 0.0]], [[1.0], [1.0]], [[1.0, float("nan")], [0.0, 1.0]]])
def test_an_embedder_that_breaks_its_promise_is_named(vectors: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="hashing-256 must return finite vectors"):
        EmbeddingWorker(_FixedEmbedder(vectors))([_entry("a", "b")])
