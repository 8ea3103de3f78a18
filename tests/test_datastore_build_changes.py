import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hashing_embedder import HashingEmbedder

from datastore_build.build import add_to_datastore, build_datastore
from datastore_build.deletion import delete_entries
from datastore_build.map.projection import project
from datastore_build.merging import compact_datastore, merge_datastores
from datastore_build.verification import verify_version
from retrieval.captions import CaptionText
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError
from retrieval.manifest import DELETED, INDEX, REJECTS, read_manifest

Write = Callable[..., Path]
ROWS: list[dict[str, Any]] = [
    {"id": "cat", "texts": {"en": "a cat sleeps", "de": "eine Katze schläft"}},
    {"id": "dog", "text": "a dog runs on the beach"},
    {"id": "bus", "text": "a red bus stops"},
    {"id": "bird", "text": "un oiseau chante", "language": "fr"},
]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def rows(*rows: dict[str, Any], name: str = "captions.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return rows


@pytest.fixture
def datastore(tmp_path: Path, write: Write) -> Path:
    build_datastore([write(*ROWS)], tmp_path / "datastore", HashingEmbedder())
    return tmp_path / "datastore"


def _all_ids(datastore: Path, query: str = "a cat sleeps") -> list[str]:
    """Of every live entry, nearest first."""
    return [hit.id for hit in Datastore.open(datastore).search(HashingEmbedder().embed_texts([query]), 99)[0]]


def _entries(datastore: Path) -> list[tuple[str, list[CaptionText]]]:
    store = Datastore.open(datastore)
    hits = store.search(HashingEmbedder().embed_texts(["a"]), 99)[0]
    return [(hit.id, store.texts(hit.entry)) for hit in sorted(hits, key=lambda hit: hit.entry)]


def test_what_is_deleted_is_found_no_more_and_nothing_is_copied(datastore: Path) -> None:
    before = Datastore.open(datastore)
    report = delete_entries(datastore, ["cat", "bird", "nobody"])
    after = Datastore.open(datastore)
    assert sorted(_all_ids(datastore)) == ["bus", "dog"]
    assert len(after) == 2
    query = HashingEmbedder().embed_texts(["a cat sleeps"])
    assert {item.id for item in after.neighbours(query, [["de"]], 9)[0][0]} == {"dog", "bus"}
    assert after.languages == {"en": 2}
    assert (report.deleted, report.missing, report.entries, report.texts) == (2, ("nobody",), 2, 2)
    assert (after.folder / INDEX).samefile(before.folder / INDEX)
    # Who has the earlier version open still finds all, and it can be opened again.
    assert len(before.search(query, 9)[0]) == len(Datastore.open(before.folder)) == 4


def test_a_version_with_deleted_entries_is_in_order_and_its_map_leaves_them_out(datastore: Path) -> None:
    delete_entries(datastore, ["cat", "bird"])
    found = verify_version(datastore, deep=True)
    assert (found.entries, found.texts, found.self_search) == (2, 2, 1.0)
    store = Datastore.open(datastore)
    projection = project(store, most_texts=10)
    assert {store.entry_id(entry) for entry in projection.entries.tolist()} == {"dog", "bus"}
    store.check()


def test_deleting_twice_adds_up(datastore: Path) -> None:
    delete_entries(datastore, ["dog"])
    delete_entries(datastore, ["bus"])
    assert sorted(_all_ids(datastore)) == ["bird", "cat"]
    with pytest.raises(
        DatastoreError, match="none of the entries to delete \\('dog'\\); nothing was changed"
    ):
        delete_entries(datastore, ["dog"])
    with pytest.raises(DatastoreError, match="no entry left"):
        delete_entries(datastore, ["cat", "bird"])


def test_compacting_gives_what_a_build_without_them_gives(
    tmp_path: Path, datastore: Path, write: Write
) -> None:
    delete_entries(datastore, ["dog", "bird"])
    report = compact_datastore(datastore)
    fresh = build_datastore([write(ROWS[0], ROWS[2])], tmp_path / "fresh", HashingEmbedder())
    assert read_manifest(Path(report.path)).content_sha256 == read_manifest(Path(fresh.path)).content_sha256
    assert not (Path(report.path) / DELETED).exists()
    assert report.deleted == 2
    again = compact_datastore(datastore)  # nothing to do
    assert (again.version, again.reused, again.deleted) == (report.version, True, 0)


def test_adding_embeds_only_what_is_new(datastore: Path, write: Write) -> None:
    embedder = HashingEmbedder()
    new = [
        {"id": "cat", "text": "taken"},
        {"id": "fox", "text": "a fox hides"},
        {"text": "a dog runs on the beach"},
    ]
    report = add_to_datastore([write(*new)], datastore, embedder)
    assert [text for batch in embedder.batches for text in batch] == [
        "a fox hides",
        "a dog runs on the beach",
    ]
    assert (report.entries, report.embedded, report.rows, report.rejected) == (6, 2, 3, 1)
    assert report.repeated_texts == 1
    assert report.near_duplicates is not None
    assert report.near_duplicates.entries == 1
    assert "was used by an earlier row" in report.rejects[0].reason
    assert [name for name, _ in _entries(datastore)] == [
        *("cat", "dog", "bus", "bird", "fox"),
        "captions.jsonl#2:3",  # the first captions.jsonl has its own third line
    ]
    assert _all_ids(datastore, "a fox hides")[0] == "fox"
    assert [source["name"] for source in report.sources] == ["captions.jsonl", "captions.jsonl#2"]


def test_adding_in_steps_gives_what_one_build_gives(tmp_path: Path, datastore: Path, write: Write) -> None:
    more: list[dict[str, Any]] = [{"id": f"n{n}", "text": f"thing number {n} of many"} for n in range(700)]
    add_to_datastore([write(*more, name="more.jsonl")], datastore, HashingEmbedder(), shard_entries=300)
    build_datastore([write(*ROWS), write(*more, name="more.jsonl")], tmp_path / "one", HashingEmbedder())
    assert _entries(datastore) == _entries(tmp_path / "one")
    assert _all_ids(datastore, "number 77 of") == _all_ids(tmp_path / "one", "number 77 of")


def test_a_deleted_entry_can_be_added_again(datastore: Path, write: Write) -> None:
    delete_entries(datastore, ["dog"])
    report = add_to_datastore([write({"id": "dog", "text": "another dog"})], datastore, HashingEmbedder())
    assert [text.text for name, texts in _entries(datastore) for text in texts if name == "dog"] == [
        "another dog"
    ]
    assert (report.entries, len(Datastore.open(datastore))) == (4, 4)
    assert read_manifest(Path(report.path)).deleted is None


def test_merging_keeps_the_first_of_one_id_and_tells_the_others(
    tmp_path: Path, datastore: Path, write: Write
) -> None:
    other = tmp_path / "other"
    rows = [
        {"id": "bus", "text": "another bus"},
        {"id": "fox", "text": "a fox"},
        {"id": "gone", "text": "x y"},
    ]
    build_datastore([write(*rows)], other, HashingEmbedder())
    delete_entries(other, ["gone"])
    report = merge_datastores([datastore, other], tmp_path / "merged")
    assert [name for name, _ in _entries(tmp_path / "merged")] == ["cat", "dog", "bus", "bird", "fox"]
    assert (report.collisions, report.collision_count, report.entries) == (("bus",), 1, 5)
    assert "an earlier datastore has an entry 'bus' already" in (Path(report.path) / REJECTS).read_text()
    texts = dict(_entries(tmp_path / "merged"))
    assert texts["bus"][0].text == "a red bus stops"
    assert (texts["cat"][0].source, texts["fox"][0].source) == ("captions.jsonl", "captions.jsonl#2")
    assert _all_ids(tmp_path / "merged", "a fox")[0] == "fox"


def test_datastores_of_two_embedders_are_not_mixed(tmp_path: Path, datastore: Path, write: Write) -> None:
    build_datastore([write({"text": "a"})], tmp_path / "other", HashingEmbedder("other"))
    with pytest.raises(DatastoreError, match="two embedders cannot be in one datastore"):
        merge_datastores([datastore, tmp_path / "other"], tmp_path / "merged")
    with pytest.raises(DatastoreError, match="built with the embedder hashing-256"):
        add_to_datastore([write({"text": "b"})], datastore, HashingEmbedder("other"))
    assert not (tmp_path / "merged").exists()


def test_what_was_published_meanwhile_is_not_lost(datastore: Path, write: Write) -> None:
    class Publishing(HashingEmbedder):
        """Somebody deletes an entry while it embeds."""

        def embed_texts(self, texts: Any) -> Any:
            delete_entries(datastore, ["dog"])
            return super().embed_texts(texts)

    with pytest.raises(DatastoreError, match="became live meanwhile"):
        add_to_datastore([write({"text": "new"})], datastore, Publishing())
    assert sorted(_all_ids(datastore)) == ["bird", "bus", "cat"]
