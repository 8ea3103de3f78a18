import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hashing_embedder import HashingEmbedder

from datastore_build.engines.worker import ConcurrentEmbedder, EmbeddingWorker
from datastore_build.sources.entries import Entry, EntryText
from models.bundle import Bundle, default_bundle


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


def test_threads_share_the_texts_and_change_nothing() -> None:
    class Concurrent(HashingEmbedder):
        def __init__(self) -> None:
            super().__init__()
            self.all_there = threading.Barrier(3, timeout=30)

        @contextmanager
        def concurrently(self) -> Iterator[int]:
            yield 3

        def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            self.all_there.wait()  # breaks unless three are at it at once
            return super().embed_texts(texts)

    entries = [Entry(str(n), (EntryText("en", f"{'very ' * (n % 7)}big {n}", 0),)) for n in range(50)]
    embedder = Concurrent()
    np.testing.assert_array_equal(
        EmbeddingWorker(embedder)(entries), EmbeddingWorker(HashingEmbedder())(entries)
    )
    assert sorted(map(len, embedder.batches)) == [16, 17, 17]


def test_fewer_texts_than_threads() -> None:
    class Concurrent(HashingEmbedder):
        @contextmanager
        def concurrently(self) -> Iterator[int]:
            yield 8

    entries = [Entry("a", (EntryText("en", "a cat", 0),)), Entry("b", (EntryText("en", "a dog", 0),))]
    vectors = EmbeddingWorker(Concurrent())(entries)
    np.testing.assert_array_equal(vectors, EmbeddingWorker(HashingEmbedder())(entries))


def test_the_bundles_embedder_gives_in_threads_what_it_gives_alone() -> None:
    embedder = Bundle.open(default_bundle()).load_embedder()
    assert isinstance(embedder, ConcurrentEmbedder)
    texts = [f"{number} dogs {'run ' * (number % 9)}on a beach" for number in range(40)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        vectors = EmbeddingWorker(embedder)([_entry(text) for text in texts])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (vectors * embedder.embed_texts(texts)).sum(axis=1) == pytest.approx(1.0, abs=1e-3)
