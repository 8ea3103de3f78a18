"""Every kind of index through the life of a datastore: built, added to, deleted from, compacted, merged."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from clustered_vectors import queries_near
from numbered_embedder import DIMENSION, NumberedEmbedder

from datastore_build.build import add_to_datastore, build_datastore
from datastore_build.deletion import delete_entries
from datastore_build.indexes.plan import IndexBudgetError
from datastore_build.map.projection import project
from datastore_build.merging import compact_datastore, merge_datastores
from datastore_build.verification import verify_version
from retrieval.datastore import Datastore
from retrieval.manifest import VECTORS, IndexRequest

EMBEDDER = NumberedEmbedder()
QUERIES = queries_near(EMBEDDER.vectors, 100)
REQUESTS = {
    "hnsw": IndexRequest(kind="hnsw", target_recall=0.97),
    "hnsw of int8": IndexRequest(kind="hnsw", memory_budget=500_000, target_recall=0.97),
    "ivf-flat": IndexRequest(kind="ivf-flat", target_recall=0.97),
    "ivf-pq": IndexRequest(kind="ivf-pq", target_recall=0.97),
    "ivf-pq of int8": IndexRequest(kind="ivf-pq", memory_budget=70_000, target_recall=0.97),
}


def _source(folder: Path, numbers: Iterable[int], name: str = "captions.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"id": f"{number}", "text": f"caption {number}"}) for number in numbers]
    (folder / name).write_text("\n".join(rows))
    return folder / name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A datastore of captions 0 to 1499 with each kind of index."""
    folder = tmp_path_factory.mktemp("built")
    source = _source(folder, range(1500))
    for name, request in REQUESTS.items():
        build_datastore([source], folder / name, EMBEDDER, index=request, near_duplicates="keep")
    return {name: folder / name for name in REQUESTS}


@pytest.fixture(params=list(REQUESTS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def datastore(kind: str, built: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(built[kind], tmp_path / "datastore")
    return tmp_path / "datastore"


def _recall(folder: Path, numbers: Iterable[int]) -> float:
    """Of the four captions that are truly nearest among those numbers, the share that is found."""
    live = np.array(sorted(numbers))
    scores = QUERIES @ EMBEDDER.vectors[live].T
    true = live[np.argsort(-scores, axis=1)[:, :4]]
    store = Datastore.open(folder, embedder_id=EMBEDDER.id, dimension=DIMENSION)
    assert len(store) == len(live)
    found = [{int(hit.id) for hit in hits} for hits in store.search(QUERIES, 4)]
    assert set().union(*found) <= set(live.tolist())
    return float(np.mean([len(own & set(near.tolist())) / 4 for own, near in zip(found, true, strict=True)]))


def _settled(folder: Path, kind: str) -> None:
    """The live version is whole, and has the kind of index that was asked for at first."""
    found = verify_version(folder, deep=True)
    assert found.self_search is not None
    assert found.self_search >= 0.98
    manifest = Datastore.open(folder).manifest
    assert manifest.index.asked == REQUESTS[kind]
    assert manifest.index.kind == REQUESTS[kind].kind
    assert manifest.index.measured is not None
    assert (VECTORS in manifest.files) == (manifest.index.kind == "ivf-pq")
    if "int8" in kind and manifest.counts.entries >= 1500:
        assert manifest.index.storage == "int8"


def test_built(kind: str, built: dict[str, Path]) -> None:
    _settled(built[kind], kind)
    assert _recall(built[kind], range(1500)) >= 0.95


def test_what_is_deleted_is_found_no_more_and_what_lies_behind_it_is(datastore: Path, kind: str) -> None:
    store = Datastore.open(datastore)
    nearest = {int(hit.id) for hits in store.search(QUERIES, 8) for hit in hits}  # all that is near a query
    delete_entries(datastore, map(str, nearest))
    left = set(range(1500)) - nearest
    assert _recall(datastore, left) >= 0.9
    assert Datastore.open(datastore).manifest.index == store.manifest.index
    assert verify_version(datastore, deep=True).entries == len(left)
    projection = project(Datastore.open(datastore), most_texts=5000)
    assert len(projection.entries) == len(left)


def test_all_but_a_few_can_be_deleted(datastore: Path) -> None:
    delete_entries(datastore, map(str, range(5, 1500)))
    store = Datastore.open(datastore)
    for hits in store.search(QUERIES[:3], 10):
        assert {hit.id for hit in hits} == {"0", "1", "2", "3", "4"}


def test_adding_keeps_the_kind_and_embeds_only_what_is_new(
    datastore: Path, kind: str, tmp_path: Path
) -> None:
    delete_entries(datastore, map(str, range(0, 1500, 3)))
    embedder = NumberedEmbedder()
    report = add_to_datastore(
        [_source(tmp_path, range(1500, 2000))], datastore, embedder, near_duplicates="keep"
    )
    assert embedder.embedded == report.embedded == 500
    _settled(datastore, kind)
    live = {number for number in range(2000) if number >= 1500 or number % 3}
    assert _recall(datastore, live) >= 0.94


def test_compacting_removes_what_is_deleted(datastore: Path, kind: str) -> None:
    delete_entries(datastore, map(str, range(0, 1500, 3)))
    before = Datastore.open(datastore).manifest
    report = compact_datastore(datastore)
    assert report.deleted == 500
    after = Datastore.open(datastore).manifest
    assert sum(file.bytes for file in after.files.values()) < sum(
        file.bytes for file in before.files.values()
    )
    _settled(datastore, kind)
    assert _recall(datastore, {number for number in range(1500) if number % 3}) >= 0.94


def test_merging_takes_the_vectors_of_all(datastore: Path, kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build_datastore([_source(tmp_path, range(1300, 1600))], other, EMBEDDER, near_duplicates="keep")
    report = merge_datastores([datastore, other], tmp_path / "merged")
    assert report.collision_count == 200
    _settled(tmp_path / "merged", kind)
    assert _recall(tmp_path / "merged", range(1600)) >= 0.94


def test_another_index_can_be_had_without_embedding(datastore: Path, kind: str) -> None:
    flat = IndexRequest(kind="flat")
    before = Datastore.open(datastore)
    report = compact_datastore(datastore, index=flat)
    assert (report.entries, report.deleted, report.reused) == (1500, 0, False)
    after = Datastore.open(datastore)
    assert after.manifest.index.kind == "flat"
    everything = np.arange(1500)
    assert np.array_equal(after.vectors(everything), before.vectors(everything))
    assert _recall(datastore, range(1500)) >= (0.97 if "int8" in kind else 0.99)
    assert compact_datastore(datastore, index=flat).reused  # nothing to do


def test_vectors_are_those_of_the_embedder_but_for_rounding(kind: str, built: dict[str, Path]) -> None:
    store = Datastore.open(built[kind])
    rounding = {"hnsw": 1e-6, "ivf-flat": 1e-6, "ivf-pq": 3e-4}.get(kind, 0.01)
    difference = np.abs(store.vectors(np.arange(1500)) - EMBEDDER.vectors[:1500]).max()
    assert difference <= rounding
    with pytest.raises(IndexError):
        store.vectors(np.array([1500]))


def test_the_same_sources_and_options_give_the_same_version(kind: str, built: dict[str, Path]) -> None:
    folder = built[kind]
    before = Datastore.open(folder).version
    source = _source(folder.parent, range(1500), "again.jsonl")
    source.replace(folder.parent / "captions.jsonl")
    report = build_datastore(
        [folder.parent / "captions.jsonl"], folder, EMBEDDER, index=REQUESTS[kind], near_duplicates="keep"
    )
    assert (report.version, report.reused) == (before, True)


def test_a_budget_that_is_too_small_is_told_before_anything_is_embedded(tmp_path: Path) -> None:
    embedder = NumberedEmbedder()
    request = IndexRequest(kind="hnsw", memory_budget=10_000)
    with pytest.raises(IndexBudgetError, match=r"more than the 9\.77 kB of --memory-budget"):
        build_datastore([_source(tmp_path, range(1500))], tmp_path / "out", embedder, index=request)
    assert embedder.embedded == 0
    assert not (tmp_path / "out").exists()
