from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from datastore_build.indexes import flat as flat_index
from datastore_build.indexes.flat import write_flat_index
from retrieval.manifest import INDEX


class Vectors:
    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self.values = values
        self.count, self.dimension = values.shape

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self.values[start:stop]

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        raise NotImplementedError


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("dimension", [1, 385])
def test_block_by_block_gives_the_file_that_faiss_writes(
    count: int, dimension: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_index, "_BLOCK_BYTES", 100_000)
    values = np.random.default_rng(1).standard_normal((count, dimension), np.float32)
    write_flat_index(Vectors(values), tmp_path / INDEX)
    index = faiss.IndexFlatIP(dimension)
    index.add(values)
    faiss.write_index(index, str(tmp_path / "by-faiss"))
    assert (tmp_path / INDEX).read_bytes() == (tmp_path / "by-faiss").read_bytes()


def test_vectors_that_stay_away_make_no_index(tmp_path: Path) -> None:
    vectors = Vectors(np.zeros((3, 4), np.float32))
    vectors.count = 4
    with pytest.raises(ValueError, match="4 vectors were announced, 3 came"):
        write_flat_index(vectors, tmp_path / INDEX)
