from pathlib import Path

import numpy as np
import pytest
from clustered_vectors import clustered, queries_near

from retrieval.errors import DatastoreError
from retrieval.stored_vectors import StoredKind, StoredVectors, encode, widen

VECTORS = clustered(700, 48)


@pytest.mark.parametrize(("kind", "error"), [("float16", 2e-4), ("int8", 5e-3)])
def test_scores_are_those_of_the_vectors(tmp_path: Path, kind: StoredKind, error: float) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"".join(encode(part, kind).tobytes() for part in np.array_split(VECTORS, 3)))
    stored = StoredVectors.open(path, kind, dimension=48, entries=700)
    query = queries_near(VECTORS, 1)[0]
    entries = np.random.default_rng(0).permutation(700)
    scores = stored.scores(query, entries)
    assert np.abs(scores - VECTORS[entries] @ query).max() < error
    for entry in (0, 350, 699):  # alone as among many
        alone = stored.scores(query, np.array([entry]))[0]
        assert alone == pytest.approx(scores[entries == entry][0], abs=1e-6)


def test_every_half_becomes_what_numpy_makes_of_it() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    assert np.array_equal(widen(finite) * np.float32(2.0**112), finite.astype(np.float32))


def test_a_vector_of_zeros_is_stored() -> None:
    record = encode(np.zeros((1, 4), np.float32), "int8")
    assert not record["values"].any()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(bytes(3 * 12 + change))
    with pytest.raises(DatastoreError, match=r"is not 3 vectors of 8 dimensions in int8: build it again"):
        StoredVectors.open(path, "int8", dimension=8, entries=3)
