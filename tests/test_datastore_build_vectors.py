"""Vectors by rows: of shards, of a version without its deleted entries, and of several after one another."""

import json
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hashing_embedder import HashingEmbedder
from memory_vectors import MemoryVectors

from datastore_build.build import build_datastore
from datastore_build.part import Part
from datastore_build.shards import EmbeddingShards
from datastore_build.vectors import VectorSource, blocks
from datastore_build.version_vectors import JoinedVectors
from retrieval.datastore import Datastore
from retrieval.manifest import IndexChoice, IndexRequest

COUNT, DIMENSION = 300, 16


@pytest.fixture
def values() -> npt.NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((COUNT, DIMENSION), np.float32)


@pytest.fixture
def shards(tmp_path: Path, values: npt.NDArray[np.float32]) -> EmbeddingShards:
    shards = EmbeddingShards(tmp_path / "shards", COUNT, DIMENSION, 70)
    for number in shards.numbers:
        rows = shards.rows(number)
        shards.note(number, shards.store(number, values[rows.start : rows.stop]))
    return shards


def _assert_reads(source: VectorSource, values: npt.NDArray[np.float32]) -> None:
    assert (source.count, source.dimension) == values.shape
    for start, stop in ((0, len(values)), (0, 1), (5, 5), (60, 215), (len(values) - 1, len(values))):
        np.testing.assert_array_equal(source.read(start, stop), values[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(blocks(source, 37))), values)
    for count in (3, 100, 10_000):  # which of them, depends on nothing else
        expected = MemoryVectors(source.dimension, [values]).sample(count, 7)
        np.testing.assert_array_equal(source.sample(count, 7), expected)


def test_shards_are_read_across_their_ends(shards: EmbeddingShards, values: npt.NDArray[np.float32]) -> None:
    assert shards.missing() == []
    _assert_reads(shards, values)
    _assert_reads(pickle.loads(pickle.dumps(shards)), values)


@pytest.mark.parametrize("kind", ["flat", "ivf-pq", "hnsw"])
def test_a_version_without_some_entries_joined_with_shards(
    kind: IndexChoice,
    tmp_path: Path,
    shards: EmbeddingShards,
    values: npt.NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "captions.jsonl"
    source.write_text("\n".join(json.dumps({"text": f"number {n} {n**3}"}) for n in range(280)))
    monkeypatch.chdir(tmp_path)
    build_datastore(
        [source], Path("out"), HashingEmbedder(dimension=DIMENSION), index=IndexRequest(kind=kind)
    )
    omitted = np.array([0, 1, 59, 60, 61, 200, 279])
    version = Part(Path("out")).vectors(omitted)
    stored = Datastore.open(tmp_path / "out").vectors(np.delete(np.arange(280), omitted))
    monkeypatch.chdir("/")  # a worker has another working folder
    _assert_reads(version, stored)
    joined = JoinedVectors([version, shards, version])
    expected = np.concatenate([stored, values, stored])
    _assert_reads(joined, expected)
    _assert_reads(pickle.loads(pickle.dumps(joined)), expected)
