import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from clustered_vectors import clustered, exact_neighbours, normalise, queries_near, recall
from memory_vectors import MemoryVectors

from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import IndexPlan, choose_index
from retrieval.errors import DatastoreError
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, VECTORS, IndexChoice, IndexRequest, IndexSettings

COUNT, DIMENSION = 3000, 32
VECTORS_3000 = clustered(COUNT, DIMENSION)
SOURCE = MemoryVectors(DIMENSION, np.array_split(VECTORS_3000, 7))
APPROXIMATE: list[IndexChoice] = ["hnsw", "ivf-flat", "ivf-pq"]
LINKS = 300 * COUNT  # bytes, more than the graph takes


def _plan(kind: IndexChoice, count: int = COUNT, budget: int | None = None) -> IndexPlan:
    return choose_index(count, DIMENSION, IndexRequest(kind=kind, memory_budget=budget))


def _open(folder: Path, settings: IndexSettings, count: int = COUNT) -> VectorIndex:
    return VectorIndex.read(folder / INDEX, dimension=DIMENSION, entries=count, settings=settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, IndexSettings]]:
    indexes: dict[str, tuple[Path, IndexSettings]] = {}
    for kind in (*APPROXIMATE, "flat"):
        folder = tmp_path_factory.mktemp(kind)
        indexes[kind] = (folder, build_index(SOURCE, _plan(kind), folder))
    return indexes


@pytest.fixture(params=[*APPROXIMATE, "flat"])
def index(request: pytest.FixtureRequest, built: dict[str, tuple[Path, IndexSettings]]) -> VectorIndex:
    return _open(*built[request.param])


def test_every_kind_reaches_the_target_on_queries_it_was_not_tuned_on(index: VectorIndex) -> None:
    queries = queries_near(VECTORS_3000, 300)
    scores, found = index.search(queries, 4)
    assert recall(found, exact_neighbours(VECTORS_3000, queries, 4)) >= (
        1.0 if not index.approximate else 0.95
    )
    true_scores = np.einsum("qe,qke->qk", queries, VECTORS_3000[found])
    assert np.abs(scores - true_scores).max() < 0.005
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_query_gets_the_same_answer_alone_and_in_a_batch(index: VectorIndex) -> None:
    queries = queries_near(VECTORS_3000, 40)
    scores, found = index.search(queries, 24)
    for row, query in enumerate(queries):
        single_scores, single = index.search(query[None], 24)
        assert np.array_equal(single_scores[0], scores[row])
        assert np.array_equal(single[0], found[row])


def test_threads_that_ask_for_different_numbers_do_not_disturb_each_other(index: VectorIndex) -> None:
    queries = queries_near(VECTORS_3000, 60)
    numbers = [1, 4, 500]
    expected = [index.search(query[None], numbers[row % 3])[1] for row, query in enumerate(queries)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda row: index.search(queries[row][None], numbers[row % 3])[1], range(60))
        assert all(np.array_equal(*pair) for pair in zip(answers, expected, strict=True))


def test_every_entry_is_found_if_all_are_asked_for(index: VectorIndex) -> None:
    _, found = index.search(queries_near(VECTORS_3000, 2), COUNT + 5)
    assert [sorted(row) for row in found.tolist()] == [list(range(COUNT))] * 2


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_manifest_says_what_was_tuned_and_measured(
    built: dict[str, tuple[Path, IndexSettings]], kind: str
) -> None:
    settings = built[kind][1]
    measured = settings.measured
    assert measured is not None
    assert (measured.k, measured.queries) == (4, 256)
    assert 0.95 <= measured.recall <= 1
    assert 0 < measured.median_ms <= measured.p99_ms
    tuned = settings.search.model_dump(exclude_none=True)
    assert (
        set(tuned)
        == {
            "hnsw": {"ef_search"},
            "ivf-flat": {"nprobe"},
            "ivf-pq": {"nprobe", "probe_margin", "candidates"},
        }[kind]
    )
    # Less than everything is looked at: it was tuned, not given up.
    assert tuned.get("nprobe", 0) < settings.parameters.get("nlist", 1)
    assert tuned.get("candidates", 0) < COUNT / 4


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_higher_target_looks_farther(tmp_path: Path, kind: IndexChoice) -> None:
    work = []
    for target in (0.6, 0.99):
        plan = replace(_plan(kind), asked=IndexRequest(target_recall=target))
        settings = build_index(SOURCE, plan, tmp_path)
        assert settings.measured is not None
        assert settings.measured.recall >= target
        work.append(np.prod(list(settings.search.model_dump(exclude_none=True).values())))
    assert work[0] < work[1]


@pytest.mark.parametrize("kind", [*APPROXIMATE, "flat"])
def test_the_same_vectors_give_the_same_bytes_and_settings(tmp_path: Path, kind: IndexChoice) -> None:
    contents = []
    for name, pieces in (("a", 1), ("b", 5)):
        folder = tmp_path / name
        folder.mkdir()
        source = MemoryVectors(DIMENSION, np.array_split(VECTORS_3000[:1500], pieces))
        settings = build_index(source, _plan(kind, 1500), folder)
        contents.append((settings.content(), {path.name: path.read_bytes() for path in folder.iterdir()}))
    assert contents[0] == contents[1]
    assert set(contents[0][1]) == ({INDEX, VECTORS} if kind == "ivf-pq" else {INDEX})


@pytest.mark.parametrize(
    ("kind", "budget", "storage"),
    [
        ("hnsw", LINKS + 2 * COUNT * DIMENSION, "float16"),
        ("hnsw", LINKS + COUNT * DIMENSION, "int8"),
        ("ivf-pq", 70_000, "int8"),
        ("ivf-pq", None, "float16"),
    ],
)
def test_vectors_in_fewer_bytes_still_reach_the_target(
    tmp_path: Path, kind: IndexChoice, budget: int | None, storage: str
) -> None:
    plan = _plan(kind, budget=budget)
    assert plan.storage == storage
    settings = build_index(SOURCE, plan, tmp_path)
    queries = queries_near(VECTORS_3000, 300)
    _, found = _open(tmp_path, settings).search(queries, 4)
    assert recall(found, exact_neighbours(VECTORS_3000, queries, 4)) >= 0.95


def test_vectors_without_clusters_are_kept_in_one_list_and_found(tmp_path: Path) -> None:
    vectors = normalise(np.random.default_rng(5).standard_normal((2000, 64)))
    plan = choose_index(2000, 64, IndexRequest(kind="ivf-pq"))
    source = _CountingSource(vectors)
    stages: list[str] = []
    settings = build_index(source, plan, tmp_path, on_stage=lambda stage, _: stages.append(stage))
    assert settings.parameters["nlist"] == settings.search.nprobe == 1
    assert "one list" in settings.reason
    assert source.read_in_order == 2 * 2000  # once for many lists, once for one; all else needs it once
    assert list(dict.fromkeys(stages)) == ["training", "adding", "writing", "tuning"]
    queries = queries_near(vectors, 300)
    index = VectorIndex.read(tmp_path / INDEX, dimension=64, entries=2000, settings=settings)
    scores, found = index.search(queries, 4)
    assert recall(found, exact_neighbours(vectors, queries, 4)) >= 0.95
    for row, query in enumerate(queries):  # the list is scanned for several queries at once
        alone_scores, alone = index.search(query[None], 4)
        assert np.array_equal(alone_scores[0], scores[row])
        assert np.array_equal(alone[0], found[row])


def test_given_queries_are_what_is_measured(tmp_path: Path) -> None:
    settings = build_index(SOURCE, _plan("ivf-flat"), tmp_path, queries=queries_near(VECTORS_3000, 30))
    assert settings.measured is not None
    assert settings.measured.queries == 15


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_datastores_of_next_to_nothing_can_have_any_kind(
    tmp_path: Path, kind: IndexChoice, count: int
) -> None:
    few = VECTORS_3000[:count]
    settings = build_index(MemoryVectors(DIMENSION, [few]), _plan(kind, count), tmp_path)
    scores, found = _open(tmp_path, settings, count).search(few, 2)
    assert scores.shape == (count, min(2, count))
    assert found[:, :1].tolist() == [[row] for row in range(count)]
    if kind != "hnsw":
        assert settings.kind == "flat"
        assert settings.reason == f"{count} vectors are too few to train an index of kind {kind}"


def test_entries_of_one_and_the_same_text_count_as_found(tmp_path: Path) -> None:
    """Of forty entries that tie for four places it is all the same which are found."""
    repeated = np.repeat(VECTORS_3000[:50], 40, axis=0)
    settings = build_index(MemoryVectors(DIMENSION, [repeated]), _plan("ivf-flat", len(repeated)), tmp_path)
    assert settings.measured is not None
    assert settings.measured.recall >= 0.95  # it would be about 0.1 if only four of the forty counted
    assert settings.search.nprobe == 1


class _CountingSource:
    """Remembers how many rows were asked for at once, and in order altogether."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        self.count, self.dimension = vectors.shape
        self.vectors = MemoryVectors(self.dimension, [vectors])
        self.largest = self.read_in_order = 0

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        self.largest = max(self.largest, stop - start)
        self.read_in_order += stop - start
        return self.vectors.read(start, stop)

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        self.largest = max(self.largest, min(count, self.count))
        return self.vectors.sample(count, seed)


def test_no_more_than_a_block_and_a_sample_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datastore_build.indexes.indexing._BLOCK_BYTES", 500 * 4 * DIMENSION)
    monkeypatch.setattr("datastore_build.indexes.truth._BLOCK_BYTES", 500 * 4 * DIMENSION)
    monkeypatch.setattr("datastore_build.indexes.list_training._TRAINING_BYTES", 600 * 4 * DIMENSION)
    source = _CountingSource(VECTORS_3000)
    build_index(source, _plan("ivf-pq"), tmp_path)
    assert source.largest <= 600
    assert source.read_in_order == COUNT  # put into lists, compared with queries and rounded at once


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_index_cut_short_anywhere_is_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path, kind: str
) -> None:
    folder, settings = built[kind]
    whole = (folder / INDEX).read_bytes()
    if (folder / VECTORS).exists():
        (tmp_path / VECTORS).write_bytes((folder / VECTORS).read_bytes())
    for size in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 25), len(whole) - 1]:
        (tmp_path / INDEX).write_bytes(whole[:size])
        with pytest.raises(DatastoreError, match=r"[bB]uild it again"):
            _open(tmp_path, settings)


@pytest.mark.parametrize("kind", [*APPROXIMATE, "flat"])
def test_an_index_of_one_kind_is_refused_as_another(
    built: dict[str, tuple[Path, IndexSettings]], kind: str
) -> None:
    folder = built[kind][0]
    for other, (_, settings) in built.items():
        if other != kind:
            with pytest.raises(DatastoreError, match="of a type that Paellera does not read"):
                _open(folder, settings)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hnsw", b"IxFI"),
        ("ivf-flat", b"IxFI"),
        ("ivf-flat", b"ilar"),
        ("ivf-pq", b"LTra"),
        ("ivf-pq", b"IwPf"),
    ],
)
def test_a_foreign_index_inside_an_index_is_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path, kind: str, name: bytes
) -> None:
    folder, settings = built[kind]
    whole = (folder / INDEX).read_bytes()
    assert name in whole
    (tmp_path / INDEX).write_bytes(whole.replace(name, b"ilod", 1))
    with pytest.raises(DatastoreError, match="of a type that Paellera does not read"):
        _open(tmp_path, settings)


def test_numbers_of_entries_that_do_not_exist_are_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path
) -> None:
    folder, settings = built["ivf-flat"]
    whole = (folder / INDEX).read_bytes()
    assert whole.count((2999).to_bytes(8, "little")) == 1
    (tmp_path / INDEX).write_bytes(whole.replace((2999).to_bytes(8, "little"), (3000).to_bytes(8, "little")))
    with pytest.raises(DatastoreError, match="its parts do not fit together"):
        _open(tmp_path, settings)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_codes_of_numbers_that_no_vector_has_are_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path, value: float
) -> None:
    """Their scores would be no numbers, and nothing would be found."""
    folder, settings = built["ivf-pq"]
    shutil.copyfile(folder / VECTORS, tmp_path / VECTORS)
    index: Any = _open(folder, settings)._index
    inner: Any = faiss.downcast_index(index.index)
    codes = inner.pq.centroids
    numbers = faiss.vector_to_array(codes)
    numbers[5] = value
    faiss.copy_array_to_vector(numbers, codes)
    faiss.write_index(index, str(tmp_path / INDEX))
    with pytest.raises(DatastoreError, match="its parts do not fit together"):
        _open(tmp_path, settings)


@pytest.mark.parametrize("field", ["entry point", "link of an upper layer", "offset"])
def test_a_graph_that_leads_out_of_its_memory_is_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path, field: str
) -> None:
    folder, settings = built["hnsw"]
    index: Any = _open(folder, settings)._index
    graph = index.hnsw
    if field == "entry point":
        graph.entry_point = int(np.argmin(faiss.vector_to_array(graph.levels)))  # not in the upper layers
    elif field == "offset":
        offsets = faiss.vector_to_array(graph.offsets)
        offsets[7] += 1
        faiss.copy_array_to_vector(offsets, graph.offsets)
    else:
        levels = faiss.vector_to_array(graph.levels)
        entry = int(np.argmax(levels))
        start = int(graph.offsets.at(entry)) + graph.cum_nneighbor_per_level.at(1)
        links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
        links[start] = int(np.argmin(levels))
    faiss.write_index(index, str(tmp_path / INDEX))
    with pytest.raises(DatastoreError, match=r"is damaged: .*uild it again"):
        _open(tmp_path, settings)


def test_stored_vectors_of_another_size_are_refused(
    built: dict[str, tuple[Path, IndexSettings]], tmp_path: Path
) -> None:
    folder, settings = built["ivf-pq"]
    for name in (INDEX, VECTORS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with (tmp_path / VECTORS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DatastoreError, match=r"192,001 bytes, which is not 3,000 vectors"):
        _open(tmp_path, settings)
