"""Image → caption recall."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from evaluation.references import Photo, References
from evaluation.retrieval import RetrievalRun, evaluate_retrieval, recall_at_k, retrieval_report


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    normalised = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(normalised, dtype=np.float32)


def test_equals_sorting_all_texts_for_each_image() -> None:
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(300, 6)))
    owner = np.concatenate([np.arange(300), rng.integers(0, 300, 500)])
    texts = unit(images[owner] + 0.5 * rng.normal(size=(800, 6)))
    expected = {1: 0.0, 5: 0.0, 10: 0.0}
    for row, image in enumerate(images):
        nearest = np.argsort(-(texts @ image))
        for k in expected:
            expected[k] += (owner[nearest[:k]] == row).any() / 300
    assert recall_at_k(images, texts, owner) == pytest.approx(expected)
    assert 0.05 < expected[1] < expected[5] < expected[10] < 0.95  # the example can tell right from wrong


def test_vectors_that_are_all_alike_find_nothing() -> None:
    same = np.full((20, 4), 0.5, dtype=np.float32)
    assert recall_at_k(same, same, np.arange(20)) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_wrong_owners_are_refused() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"must be \(3,\)"):
        recall_at_k(vectors, vectors, np.arange(2))
    for owner in ([0, 1, 1], [0, 1, 3]):
        with pytest.raises(ValueError, match="each of the 3 images"):
            recall_at_k(vectors, vectors, np.array(owner))


class GreyEmbedder:
    """A photo's vector is its shade; a text's is the number in it."""

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return self._vectors([np.asarray(image).mean() for image in images])

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._vectors([float(text.split()[-1]) for text in texts])

    def _vectors(self, shades: Sequence[float]) -> npt.NDArray[np.float32]:
        angles = np.array(shades) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_each_language_is_searched_alone_with_the_photos_it_describes(tmp_path: Path) -> None:
    photos = []
    for shade in (10, 20, 30, 40):
        path = tmp_path / f"{shade}.png"
        Image.new("RGB", (3, 3), (shade, shade, shade)).save(path)
        photos.append(Photo(str(shade), path))
    references = {
        "en": References("en", ("human",), {str(shade): [f"grey {shade}"] for shade in (10, 20, 30, 40)}),
        # 20 and 40 are swapped, and 10 has two captions, one of them good.
        "es": References("es", ("MT",), {"10": ["gris 99", "gris 10"], "20": ["gris 40"], "40": ["gris 20"]}),
    }
    done: list[int] = []
    results = evaluate_retrieval(
        GreyEmbedder(), GreyEmbedder(), photos, references, batch_size=3, advance=done.append
    )
    english, spanish = results
    assert done == [3, 1]
    assert english.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert (spanish.photos, spanish.captions, spanish.by_people) == (3, 4, False)
    assert spanish.recall == {1: pytest.approx(1 / 3), 5: 1.0, 10: 1.0}

    report = retrieval_report(results, RetrievalRun("tiny", "1", "grey-2", "dev"))
    assert "| es | MT | 3 | 4 | 33.3% | 100.0% | 100.0% |" in report.markdown()
    assert report.document["languages"][0]["recall"]["10"] == 1.0
