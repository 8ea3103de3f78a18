import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hashing_embedder import HashingEmbedder

from datastore_build.build import build_datastore
from datastore_build.draft import open_draft
from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import choose_index
from datastore_build.publish import publish
from datastore_build.shards import EmbeddingShards
from datastore_build.writer import CaptionsWriter
from retrieval.datastore import Datastore, Neighbour
from retrieval.errors import DatastoreError
from retrieval.manifest import live_version

EMBEDDER = HashingEmbedder()
Open = Callable[..., Datastore]


@pytest.fixture
def open_datastore(tmp_path: Path) -> Open:
    def build(*rows: dict[str, Any]) -> Datastore:
        source = tmp_path / "captions.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        build_datastore([source], tmp_path / "datastore", EMBEDDER)
        return Datastore.open(tmp_path / "datastore", embedder_id=EMBEDDER.id, dimension=EMBEDDER.dimension)

    return build


def _texts(neighbours: Sequence[Neighbour]) -> list[str]:
    return [neighbour.text for neighbour in neighbours]


def test_search_equals_scoring_every_entry(open_datastore: Open) -> None:
    texts = [f"a photo of number {number} beside number {number * number % 23}" for number in range(200)]
    store = open_datastore(*({"id": str(number), "text": text} for number, text in enumerate(texts)))
    queries = EMBEDDER.embed_texts(texts[:30])
    scores = queries.astype(np.float64) @ EMBEDDER.embed_texts(texts).T
    for query, hits in enumerate(store.search(queries, 10)):
        order = np.lexsort((np.arange(200), -scores[query].astype(np.float32)))[:10]
        assert [hit.entry for hit in hits] == order.tolist()
        assert [hit.id for hit in hits] == [str(entry) for entry in order]
        assert [hit.score for hit in hits] == pytest.approx(scores[query][order])
        assert store.search(queries[query : query + 1], 10) == [hits]


def test_one_retrieval_serves_every_language_with_fallback(open_datastore: Open) -> None:
    store = open_datastore(
        {"id": "cat", "texts": {"en": "a cat sleeps", "de": "eine Katze schläft", "uk": "кіт спить"}},
        {"id": "dog", "texts": {"en": "a dog runs", "de": "ein Hund rennt"}},
        {"id": "cup", "texts": {"fr": "une tasse de café", "es": "una taza de café"}},
    )
    query = EMBEDDER.embed_texts(["a cat sleeps"])
    ((german, ukrainian, chinese),) = store.neighbours(query, [["de", "uk", "zh"]], 3)
    assert [(item.id, item.language) for item in german] == [("cat", "de"), ("dog", "de"), ("cup", "fr")]
    assert [(item.id, item.language) for item in ukrainian] == [("cat", "uk"), ("dog", "en"), ("cup", "fr")]
    assert [(item.id, item.language) for item in chinese] == [("cat", "en"), ("dog", "en"), ("cup", "fr")]
    assert german[0].text == "eine Katze schläft"
    # The score is the entry's, whatever language its text is shown in.
    assert [item.score for item in german] == [item.score for item in ukrainian]
    assert store.languages == {"de": 2, "en": 2, "es": 1, "fr": 1, "uk": 1}


def test_in_mixed_languages_ones_own_come_first_if_they_are_near(open_datastore: Open) -> None:
    endings = ["old stone bridges", "quiet village churches", "busy market squares", "green football fields"]
    rows: list[dict[str, Any]] = [
        {"id": f"en-{number}", "text": f"a red bus stands near {ending}"}
        for number, ending in enumerate(endings)
    ]
    rows += [{"id": "near", "text": "a red bus stands ein Mast", "language": "de"}]
    rows += [{"id": "far", "text": "etwas ganz anderes", "language": "de"}]
    store = open_datastore(*rows)
    query = EMBEDDER.embed_texts(["a red bus stands near"])
    ((german, english),) = store.neighbours(query, [["de", "en"]], 3)
    assert german[0].id == "near"
    assert [item.language for item in german] == ["de", "en", "en"]  # "far" is not worth it
    assert [item.language for item in english] == ["en", "en", "en"]
    scores = store.search(query, 1)[0]
    assert scores[0].id != "near"  # by distance alone it would not have been first


def test_each_query_has_its_own_languages_and_exclusions(open_datastore: Open) -> None:
    store = open_datastore(
        {"id": "1", "texts": {"en": "a red bus", "es": "un autobús rojo"}},
        {"id": "2", "texts": {"en": "a red car", "es": "un coche rojo"}},
    )
    queries = EMBEDDER.embed_texts(["a red bus", "a red bus"])
    first, second = store.neighbours(queries, [["en"], ["es", "en"]], 1, exclude=[set(), {"1"}])
    assert [_texts(found) for found in first] == [["a red bus"]]
    assert [_texts(found) for found in second] == [["un coche rojo"], ["a red car"]]


def test_neighbours_under_the_minimum_score_are_dropped(open_datastore: Open) -> None:
    store = open_datastore({"text": "a red bus"}, {"text": "blue boats everywhere"})
    query = EMBEDDER.embed_texts(["a red bus"])
    assert len(store.neighbours(query, [["en"]], 4)[0][0]) == 2
    assert _texts(store.neighbours(query, [["en"]], 4, min_score=0.5)[0][0]) == ["a red bus"]
    assert store.neighbours(query, [["en"]], 4, min_score=1.1) == [[[]]]


def test_near_duplicates_are_dropped_and_replaced_from_farther_away(open_datastore: Open) -> None:
    same = [{"id": f"same-{number}", "text": f"A red bus{'.' * (number % 3)}"} for number in range(150)]
    store = open_datastore(
        *same, {"id": "other", "text": "a green tram waits here"}, {"id": "x", "text": "red"}
    )
    query = EMBEDDER.embed_texts(["a red bus"])
    found = store.neighbours(query, [["en"]], 3)[0][0]
    # Far more than a first look fetches are the same text; of them the first of equal score is kept.
    assert [item.id for item in found] == ["same-0", "x", "other"]


def test_duplicates_are_judged_in_the_language_shown(open_datastore: Open) -> None:
    store = open_datastore(
        {"id": "1", "texts": {"en": "a mug on a table", "de": "eine Tasse auf einem Tisch"}},
        {"id": "2", "texts": {"en": "a cup on a desk", "de": "Eine Tasse auf einem Tisch!"}},
    )
    query = EMBEDDER.embed_texts(["a mug on a table"])
    english, german = store.neighbours(query, [["en", "de"]], 2)[0]
    assert [item.id for item in english] == ["1", "2"]
    assert [item.id for item in german] == ["1"]


def test_excluding_everything_gives_nothing(open_datastore: Open) -> None:
    store = open_datastore({"id": "1", "text": "a"}, {"id": "2", "text": "b"})
    assert store.neighbours(EMBEDDER.embed_texts(["a"]), [["en"]], 4, exclude=[{"1", "2"}]) == [[[]]]


def test_an_empty_datastore_answers_with_empty_lists(tmp_path: Path) -> None:
    with open_draft(tmp_path, None, resume=False) as (draft, _):
        with CaptionsWriter(draft.folder, []) as writer:
            counts = writer.finish()
        shards = EmbeddingShards(draft.shards, count=0, dimension=8)
        index = build_index(shards, choose_index(0, 8), draft.folder)
        publish(tmp_path, draft.folder, embedder="e", dimension=8, index=index, counts=counts, sources=[])
    store = Datastore.open(tmp_path)
    queries = np.eye(2, 8, dtype=np.float32)
    assert len(store) == 0
    assert store.search(queries, 3) == [[], []]
    assert store.neighbours(queries, [["en"], ["de", "fr"]], 3) == [[[]], [[], []]]


def test_no_queries_and_no_neighbours_wanted(open_datastore: Open) -> None:
    store = open_datastore({"text": "a"})
    assert store.neighbours(np.empty((0, EMBEDDER.dimension), np.float32), [], 3) == []
    assert store.neighbours(EMBEDDER.embed_texts(["a"]), [["en", "de"]], 0) == [[[], []]]


def test_wrong_arguments_are_named(open_datastore: Open) -> None:
    store = open_datastore({"text": "a"})
    query = EMBEDDER.embed_texts(["a"])
    with pytest.raises(ValueError, match="for each query"):
        store.neighbours(query, ["en"], 1)
    with pytest.raises(ValueError, match="same length"):
        store.neighbours(query, [["en"], ["de"]], 1)
    with pytest.raises(ValueError, match=r"\(B, 256\)"):
        store.search(np.zeros((1, 3), np.float32), 1)
    with pytest.raises(ValueError, match="finite"):
        store.search(np.full((1, 256), np.nan, np.float32), 1)


def test_another_embedder_is_refused(open_datastore: Open) -> None:
    folder = open_datastore({"text": "a"}).folder.parent.parent
    with pytest.raises(DatastoreError, match=r"built with the embedder hashing-256.*other-1: build it again"):
        Datastore.open(folder, embedder_id="other-1")
    with pytest.raises(DatastoreError, match=r"256 dimensions.*128: build it again"):
        Datastore.open(folder, embedder_id=EMBEDDER.id, dimension=128)


def test_a_version_can_be_opened_directly(open_datastore: Open) -> None:
    live = open_datastore({"text": "a"})
    assert Datastore.open(live_version(live.folder.parent.parent)).version == live.version


def test_every_flipped_byte_is_found(open_datastore: Open) -> None:
    folder = open_datastore({"text": "a cat"}, {"text": "a dog"}).folder
    for path in (folder / "captions.arrow", folder / "index.faiss"):
        whole = path.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
            with pytest.raises(DatastoreError, match=f"{path.name} is damaged"):
                Datastore.open(folder)
        path.write_bytes(whole)
    Datastore.open(folder)


def test_a_reader_keeps_its_version_while_another_is_published(open_datastore: Open) -> None:
    first = open_datastore({"text": "a cat"})
    second = open_datastore({"text": "a dog"})
    query = EMBEDDER.embed_texts(["a cat"])
    assert first.version != second.version
    assert _texts(first.neighbours(query, [["en"]], 1)[0][0]) == ["a cat"]
    assert _texts(second.neighbours(query, [["en"]], 1)[0][0]) == ["a dog"]


def test_many_threads_get_the_answers_of_one(open_datastore: Open) -> None:
    texts = [f"thing {number} at place {number % 7}" for number in range(100)]
    store = open_datastore(*({"text": text} for text in texts))
    queries = EMBEDDER.embed_texts(texts)
    expected = store.neighbours(queries, [["en"]] * 100, 3)
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda row: store.neighbours(queries[row : row + 1], [["en"]], 3)[0], range(100))
        assert list(answers) == expected
