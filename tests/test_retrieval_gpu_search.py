"""Searching on a graphics card, with a stand-in for one: an index in float16 on the CPU."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from clustered_vectors import clustered, queries_near
from memory_vectors import MemoryVectors
from small_datastores import publish

from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import choose_index
from retrieval.datastore import Datastore
from retrieval.gpu_search import Device, NoGpuError, gpu_count, on_gpu
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, IndexChoice, IndexKind, IndexRequest

VECTORS = clustered(2000, 32)
QUERIES = queries_near(VECTORS, 50)


class Options:
    useFloat16 = False  # noqa: N815  (faiss's name)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """faiss reports a card; the indexes that were copied to it."""
    copied: list[Any] = []

    def copy(resources: object, number: int, index: Any, options: Options) -> Any:
        assert options.useFloat16
        if isinstance(index, faiss.IndexFlatIP):
            half: Any = faiss.IndexScalarQuantizer(
                index.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            half.add(index.reconstruct_n(0, index.ntotal))
        else:
            half = faiss.clone_index(index)
        copied.append(half)
        return half

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    return copied


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the tests run with faiss-gpu."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)


def _both(folder: Path, kind: IndexChoice, vectors: Any = VECTORS) -> tuple[VectorIndex, VectorIndex]:
    """The index on the CPU and on the card."""
    count, dimension = vectors.shape
    plan = choose_index(count, dimension, IndexRequest(kind=kind))
    settings = build_index(MemoryVectors(dimension, [vectors]), plan, folder)
    devices: tuple[Device, Device] = ("cpu", "gpu")
    cpu, gpu = (
        VectorIndex.read(folder / INDEX, dimension=dimension, entries=count, settings=settings, device=device)
        for device in devices
    )
    return cpu, gpu


@pytest.mark.parametrize("kind", ["flat", "ivf-flat"])
@pytest.mark.parametrize("k", [1, 4, 100, 2000])
def test_answers_are_those_of_the_cpu(tmp_path: Path, card: list[Any], kind: IndexChoice, k: int) -> None:
    cpu, gpu = _both(tmp_path, kind)
    assert len(card) == 1
    scores, entries = cpu.search(QUERIES, k)
    gpu_scores, gpu_entries = gpu.search(QUERIES, k)
    assert np.array_equal(entries, gpu_entries)
    assert np.abs(scores - gpu_scores).max() < 1e-6


def test_entries_closer_than_the_cards_rounding_come_in_the_right_order(
    tmp_path: Path, card: list[Any]
) -> None:
    """Hundreds of nearly equal vectors, which float16 does not tell apart."""
    noise = np.random.default_rng(3).standard_normal((600, 32)).astype(np.float32)
    close = VECTORS[0] + 2e-5 * noise
    vectors = np.concatenate([VECTORS[:500], close / np.linalg.norm(close, axis=1, keepdims=True)])
    cpu, gpu = _both(tmp_path, "flat", vectors)
    _, finds = card[0].search(VECTORS[:1], 5)
    scores, entries = cpu.search(VECTORS[:1], 5)
    assert finds[0].tolist() != entries[0].tolist()  # what the card alone would say
    assert np.array_equal(gpu.search(VECTORS[:1], 5)[1], entries)
    assert np.array_equal(gpu.search(VECTORS[:1], 5)[0], scores)


@pytest.mark.usefixtures("no_card")
def test_without_a_card_auto_takes_the_cpu_and_gpu_is_one_clear_error(tmp_path: Path) -> None:
    publish(tmp_path / "store", ["a cat", "a dog"])
    assert gpu_count() == 0
    query = np.eye(1, 32, dtype=np.float32)
    expected = Datastore.open(tmp_path / "store").search(query, 2)
    assert Datastore.open(tmp_path / "store", device="auto").search(query, 2) == expected
    with pytest.raises(NoGpuError, match=r"^no graphics card to search on: faiss reports none .* to cpu$"):
        Datastore.open(tmp_path / "store", device="gpu")


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
def test_kinds_that_no_card_searches(kind: IndexKind) -> None:
    assert not on_gpu("auto", kind)
    assert not on_gpu("cpu", "flat")
    assert on_gpu("auto", "flat")
    with pytest.raises(NoGpuError, match=f"an index of kind {kind} is not searched on a graphics card"):
        on_gpu("gpu", kind)


@pytest.mark.usefixtures("card")
def test_another_version_is_searched_on_the_card_too(tmp_path: Path, card: list[Any]) -> None:
    first = publish(tmp_path / "store", ["a cat", "a dog"])
    store = Datastore.open(tmp_path / "store", device="gpu")
    assert (store.device, len(card)) == ("gpu", 1)
    store.check()
    publish(tmp_path / "store", ["a bus", "a bird"])
    Datastore.open(tmp_path / "store", version=first, device=store.device).check()
    assert len(card) == 2
