"""How near captions are to their photos in the space of a bundle's embedder: the cosines of CLIPScore.

It needs no references. What it says depends on the embedder, so it is comparable only between captions that
were measured with the same one.
"""

from collections.abc import Callable, Sequence

import numpy as np

from evaluation.captions import Mode, WrittenCaption
from evaluation.references import Photo
from evaluation.retrieval import EmbedsImages, EmbedsTexts, embed_photos

_TEXTS_AT_ONCE = 512


def caption_similarities(
    captioner: EmbedsImages,
    embedder: EmbedsTexts,
    photos: Sequence[Photo],
    written: Sequence[WrittenCaption],
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda photos: None,
) -> dict[tuple[str, str, Mode], float]:
    """Cosine of each caption with its photo, by image id, language and mode. Each text is embedded once.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    rows = {photo.image_id: row for row, photo in enumerate(photos)}
    images = embed_photos(captioner, photos, batch_size=batch_size, advance=advance)  # (P, E)
    texts = {text: row for row, text in enumerate(dict.fromkeys(output.caption.text for output in written))}
    listed = list(texts)
    vectors = np.concatenate(
        [
            embedder.embed_texts(listed[start : start + _TEXTS_AT_ONCE])
            for start in range(0, len(listed), _TEXTS_AT_ONCE)
        ]
    )  # (T, E)
    return {
        (output.image_id, output.caption.language, output.retrieval): float(
            images[rows[output.image_id]] @ vectors[texts[output.caption.text]]
        )
        for output in written
    }
