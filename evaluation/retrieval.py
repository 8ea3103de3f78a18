"""Does a photo find its own captions? Recall of image → caption retrieval with a bundle's embedder.

It measures the embedder alone: no datastore and no language model is involved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.references import Photo, References, open_photo
from evaluation.report import Report, ReportTable

CUTOFFS = (1, 5, 10)
_ROWS = 256  # images scored at once, which bounds the memory of the score matrix

FloatVectors = npt.NDArray[np.float32]


class EmbedsImages(Protocol):
    """The part of `models.photo_embedding.PhotoEmbedder` that is used."""

    def embed_images(self, images: Sequence[Image.Image]) -> FloatVectors: ...


class EmbedsTexts(Protocol):
    """The part of `retrieval.embedder.Embedder` that is used."""

    def embed_texts(self, texts: Sequence[str]) -> FloatVectors: ...


@dataclass(frozen=True)
class RetrievalResult:
    """Recall of one language. `recall` maps each cutoff k to a share from 0 to 1."""

    language: str
    kinds: tuple[str, ...]
    by_people: bool
    photos: int
    captions: int
    recall: Mapping[int, float]


@dataclass(frozen=True)
class RetrievalRun:
    """What a report says of the run beside its scores."""

    bundle: str
    revision: str
    embedder: str
    split: str


def recall_at_k(
    image_vectors: FloatVectors,
    text_vectors: FloatVectors,
    owner: npt.NDArray[np.int64],
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[int, float]:
    """Share of images that have a caption of their own among the k texts nearest to them.

    A text of another image that is exactly as near as the best own one counts as nearer, so that vectors
    that are all alike score 0 and not 1.

    Args:
        image_vectors: (N, E) float32, L2-normalised.
        text_vectors: (M, E) float32, L2-normalised.
        owner: (M,) the row of the image each text describes; every image has at least one.

    Raises:
        ValueError: the shapes do not fit, or an image has no text.
    """
    return recall_of_ranks(own_ranks(image_vectors, text_vectors, owner), cutoffs)


def recall_of_ranks(ranks: npt.NDArray[np.int64], cutoffs: Sequence[int] = CUTOFFS) -> dict[int, float]:
    """Recall from how many foreign texts come before the best own one of each image."""
    return {k: float((ranks < k).mean()) for k in cutoffs}


def own_ranks(
    image_vectors: FloatVectors, text_vectors: FloatVectors, owner: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many foreign texts (N,) come before the best own one of each image; arguments as `recall_at_k`."""
    images = len(image_vectors)
    if owner.shape != (len(text_vectors),):
        raise ValueError(f"owner must be ({len(text_vectors)},), not {owner.shape}")
    if images == 0 or len(np.unique(owner)) != images or owner.min() != 0 or owner.max() != images - 1:
        raise ValueError(f"owner must name each of the {images} images at least once and no other")
    ranks = np.empty(images, dtype=np.int64)  # foreign texts before the best own one
    for start in range(0, images, _ROWS):
        scores = image_vectors[start : start + _ROWS] @ text_vectors.T  # (b, M)
        own = owner[None, :] == np.arange(start, start + len(scores))[:, None]
        best = np.where(own, scores, -np.inf).max(axis=1)
        ranks[start : start + len(scores)] = ((scores >= best[:, None]) & ~own).sum(axis=1)
    return ranks


def embed_photos(
    photo_embedder: EmbedsImages,
    photos: Sequence[Photo],
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda photos: None,
) -> FloatVectors:
    """Vectors (N, E) of N photos, opened a batch at a time.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    blocks = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        blocks.append(photo_embedder.embed_images([open_photo(photo) for photo in batch]))
        advance(len(batch))
    return np.concatenate(blocks)


def evaluate_retrieval(
    photo_embedder: EmbedsImages,
    embedder: EmbedsTexts,
    photos: Sequence[Photo],
    references: Mapping[str, References],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda photos: None,
) -> list[RetrievalResult]:
    """Search the captions of the photos, one language at a time, with each of the photos.

    In each language only photos that have a caption in it take part.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    vectors = embed_photos(photo_embedder, photos, batch_size=batch_size, advance=advance)  # (N, E)
    results = []
    for language, captions in references.items():
        rows = [row for row, photo in enumerate(photos) if photo.image_id in captions.texts]
        groups = [captions.texts[photos[row].image_id] for row in rows]
        owner = np.repeat(np.arange(len(rows)), [len(group) for group in groups])
        texts = [text for group in groups for text in group]
        recall = recall_at_k(vectors[rows], embedder.embed_texts(texts), owner)
        results.append(
            RetrievalResult(language, captions.kinds, captions.by_people, len(rows), len(texts), recall)
        )
    return results


def retrieval_report(results: Sequence[RetrievalResult], run: RetrievalRun) -> Report:
    """The report of a run, one row a language."""
    header = ["language", "references", "photos", "captions", *(f"recall@{k}" for k in CUTOFFS)]
    rows = [
        [
            result.language,
            ", ".join(result.kinds),
            str(result.photos),
            str(result.captions),
            *(f"{result.recall[k]:.1%}" for k in CUTOFFS),
        ]
        for result in results
    ]
    return Report(
        title="Retrieval evaluation",
        facts=[
            f"bundle {run.bundle}, revision {run.revision}",
            f"embedder {run.embedder}",
            f"split {run.split}; each photo against all captions of the split in one language",
        ],
        tables=[ReportTable("Image → caption recall", header, rows)],
        document={
            "evaluation": "retrieval",
            **asdict(run),
            "languages": [
                {**asdict(result), "recall": {str(k): share for k, share in result.recall.items()}}
                for result in results
            ],
        },
    )
