from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hostile.datastores import seal
from small_datastores import publish

from datastore_build.verification import verify_version
from retrieval.captions import SCHEMA
from retrieval.errors import DatastoreError
from retrieval.manifest import live_version

ROWS: list[str | dict[str, Any]] = [
    {"id": "cat", "texts": {"en": "a cat sleeps", "de": "eine Katze schläft"}}
]
ROWS += [{"id": f"dog {number}", "text": f"a dog runs in street {number}"} for number in range(300)]
ROWS += [{"id": "twin", "text": "a dog runs in street 7"}]


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    publish(tmp_path / "datastore", ROWS)
    return tmp_path / "datastore"


def test_a_good_version(datastore: Path) -> None:
    version = live_version(datastore).name
    shallow, deep = verify_version(datastore), verify_version(datastore, version, deep=True)
    assert (shallow.version, shallow.entries, shallow.texts, shallow.deep) == (version, 302, 303, False)
    assert shallow.self_search is None
    assert (deep.deep, deep.self_search) == (True, 1.0)


def test_an_older_version_is_verified_by_name(datastore: Path) -> None:
    first = live_version(datastore).name
    second = publish(datastore, ["something else"])
    assert verify_version(datastore).version == second
    assert verify_version(datastore, first, deep=True).version == first
    (datastore / "versions" / first / "index.faiss").write_bytes(b"")
    with pytest.raises(DatastoreError, match=r"index\.faiss is damaged"):
        verify_version(datastore, first)
    with pytest.raises(DatastoreError, match="there is no version 'none'"):
        verify_version(datastore, "none")


def vectors_of(version: Path) -> Any:
    index = faiss.read_index(str(version / "index.faiss"))
    return index.reconstruct_n(0, index.ntotal)


def put_vectors(version: Path, vectors: Any) -> None:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    faiss.write_index(index, str(version / "index.faiss"))


def not_finite(version: Path) -> None:
    vectors = vectors_of(version)
    vectors[77, 3] = np.nan
    put_vectors(version, vectors)


def not_normalised(version: Path) -> None:
    vectors = vectors_of(version)
    vectors[78] *= 1.5
    put_vectors(version, vectors)


def rewrite(version: Path, change: Callable[[dict[str, list[Any]]], None]) -> None:
    path = version / "captions.arrow"
    columns = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pydict()
    change(columns)
    path.unlink()
    with pa.ipc.new_file(str(path), SCHEMA) as writer:
        for batch in pa.table(columns, schema=SCHEMA).to_batches():
            writer.write_batch(batch)


def same_id(columns: dict[str, list[Any]]) -> None:
    columns["entry_id"][-1] = "dog 7"


def empty_text(columns: dict[str, list[Any]]) -> None:
    columns["text"][20] = " \n"


def another_language(columns: dict[str, list[Any]]) -> None:
    columns["language"][20] = "fr"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (not_finite, r"the vector of entry 77 \('dog 76'\) is not finite"),
        (not_normalised, r"the vector of entry 78 \('dog 77'\) is not L2-normalised"),
        (lambda version: rewrite(version, same_id), "two entries have the id 'dog 7'"),
        (lambda version: rewrite(version, empty_text), "entry 'dog 18' has an empty text"),
        (
            lambda version: rewrite(version, another_language),
            "holds 301 texts in 'en', but its manifest says 302",
        ),
    ],
)
def test_what_only_a_deep_look_finds(datastore: Path, spoil: Callable[[Path], None], message: str) -> None:
    version = live_version(datastore)
    spoil(version)
    seal(version)
    verify_version(datastore)
    with pytest.raises(DatastoreError, match=message) as error:
        verify_version(datastore, deep=True)
    assert "\n" not in str(error.value)


def test_an_index_that_does_not_find_its_entries(datastore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a damaged graph or lists would not: the vectors are there, and a search leads elsewhere."""
    from retrieval.index import VectorIndex

    def lost(self: VectorIndex, queries: Any, k: int) -> tuple[Any, Any]:
        return np.full((len(queries), k), 0.1, np.float32), np.zeros((len(queries), k), np.int64)

    monkeypatch.setattr(VectorIndex, "search", lost)
    with pytest.raises(DatastoreError, match=r"of 256 entries searched for only [01] were found"):
        verify_version(datastore, deep=True)
