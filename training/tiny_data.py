"""Data enough for a few steps, made of a bundle and nothing else: drawn photos with captions that exist.

The bundle's vision encoder looks at the drawings. Of the captions in its datastore the nearest to a drawing
count as its own, those after them as its neighbours. They do not describe it, and nothing good is learnt from
them, but every part gets what it would get of real data.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from rich.console import Console

from models.bundle import Bundle
from retrieval.errors import InvalidRequestError
from training.corpus import CaptionCorpus, CaptionRow
from training.features import FeatureCache, extract
from training.photo_encoders import CompactPhotoEncoder
from training.photo_index import Photo

_PHOTOS = 6
_SIZE = (160, 120)
_OWN = 2  # entries of the datastore whose captions count as a drawing's own
_NEIGHBOURS = 8  # entries after those


@dataclass(frozen=True)
class TinyData:
    """What a recipe can be tried out on."""

    images: Mapping[str, Image.Image]  # by photo
    features: FeatureCache  # plain and mirrored
    captions: CaptionCorpus  # language → photo → captions
    neighbours: CaptionCorpus  # language → entry of the datastore → captions
    retrieved: Mapping[str, Sequence[str]]  # photo → entries found for it, its own left out, nearest first


def make_tiny_data(bundle: Bundle, folder: Path) -> TinyData:
    """Draw photos into `folder` and encode them there.

    Raises:
        DatastoreError: the bundle has no datastore.
        InvalidRequestError: its datastore has too few captions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    images = {f"drawing-{number}": draw_scene(rng) for number in range(_PHOTOS)}
    photos = [Photo(name, f"{name}.png", "train") for name in images]
    for photo in photos:
        images[photo.image_id].save(folder / photo.file)
    encoder, quiet = CompactPhotoEncoder(), Console(quiet=True)
    for mirror in (False, True):
        extract(photos, folder, folder / "features", encoder, mirror=mirror, console=quiet)
    features = FeatureCache(folder / "features")

    embedder = bundle.load_embedder()
    datastore = bundle.load_datastore(embedder)
    needed = _OWN * len(images) + _NEIGHBOURS
    if len(datastore) < needed:
        raise InvalidRequestError(f"{datastore.folder} has fewer than {needed} captions to try this with")
    names = list(images)
    queries = embedder.embed_pooled(features.pooled(names), features.class_logits(names))
    taken: set[int] = set()  # as a drawing's own: no two drawings share one
    own, neighbours = list[CaptionRow](), list[CaptionRow]()
    retrieved = dict[str, list[str]]()
    for name, hits in zip(names, datastore.search(queries.vectors, needed), strict=True):
        mine = [hit.entry for hit in hits if hit.entry not in taken][:_OWN]
        taken.update(mine)
        others = [hit.entry for hit in hits if hit.entry not in mine][:_NEIGHBOURS]
        retrieved[name] = [str(entry) for entry in others]
        for rows, key, entries in ((own, name, mine), *((neighbours, str(e), [e]) for e in others)):
            for entry in entries:
                rows += [
                    CaptionRow(key, text.language, text.text, "human") for text in datastore.texts(entry)
                ]
    return TinyData(images, features, CaptionCorpus(own), CaptionCorpus(neighbours), retrieved)


def draw_scene(rng: random.Random) -> Image.Image:
    """A scene of a few flat shapes: sky and ground, a sun, houses, balls."""
    width, height = _SIZE

    def colour(lowest: int, highest: int) -> tuple[int, int, int]:
        return rng.randint(lowest, highest), rng.randint(lowest, highest), rng.randint(lowest, highest)

    image = Image.new("RGB", _SIZE, colour(120, 255))
    draw = ImageDraw.Draw(image)
    horizon = rng.randint(height // 3, 2 * height // 3)
    draw.rectangle((0, horizon, width, height), fill=colour(20, 140))
    x = rng.randint(0, width)
    draw.ellipse((x - 12, 4, x + 12, 28), fill=(250, 220, 60))
    for _ in range(rng.randint(1, 4)):
        x, y, size = rng.randint(0, width), rng.randint(horizon, height), rng.randint(8, 30)
        if rng.random() < 0.5:
            draw.rectangle((x - size, y - size, x + size, y), fill=colour(0, 255))
            draw.polygon(((x - size, y - size), (x, y - 2 * size), (x + size, y - size)), fill=colour(0, 255))
        else:
            draw.ellipse((x - size, y - 2 * size, x + size, y), fill=colour(0, 255))
    return image
