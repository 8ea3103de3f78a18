"""Encode photos once, so that training reads features instead of running the vision encoder.

    python -m training.features --images DIR --index images.jsonl --output DIR [--mirror]
    python -m training.features --images DIR --karpathy dataset_coco.json --vision MODEL --output DIR

A shard is entered in the index only once it is whole on disk, so a killed run is taken up where it stopped,
and the folder is in the end the same. Knows no captions and no training loop; training/feature_cache.py says
how the folder is laid out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from models.vision.features import VisionFeatures
from retrieval.errors import InvalidImageError, InvalidRequestError, PaelleraError
from training.at_size.karpathy import read_karpathy_photos
from training.at_size.rejects import Rejects
from training.feature_cache import (
    MIRROR,
    PLAIN,
    FeatureCache,
    FeatureIndex,
    Shard,
    read_index,
    write_index,
)
from training.files import save_tensors
from training.photo_encoders import CompactPhotoEncoder, HubPhotoEncoder, PhotoEncoder, model_folder
from training.photo_index import Photo, read_photos

__all__ = ["FeatureCache", "extract", "main"]

SHARD_SIZE = 256  # photos; about 55 MB of the compact encoder, 20 MB of CLIP ViT-B/32
BATCH_SIZE = 32


def extract(
    photos: Sequence[Photo],
    images: Path,
    output: Path,
    encoder: PhotoEncoder,
    *,
    mirror: bool = False,
    pooled_only: bool = False,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    console: Console | None = None,
) -> int:
    """Encode `photos` into shards in `output`; shards of an earlier run with the same photos are kept.

    Args:
        pooled_only: without visual tokens, which take most of the space: enough to retrieve captions by.

    Returns:
        How many photos were encoded now.

    Raises:
        InvalidImageError: a photo is missing or damaged. What was done before it is kept.
        InvalidRequestError: `output` has features of another encoder, or others of this one.
    """
    name = MIRROR if mirror else PLAIN
    output.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(encoder, pooled_only)
    finished = {shard.file: shard for shard in _shards_to_keep(output, encoder.id, name, tensors)}
    shards: list[Shard] = []
    encoded = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} photos/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task(f"encoding ({name})", total=len(photos), rate=0.0)
        for number, start in enumerate(range(0, len(photos), shard_size)):
            part = photos[start : start + shard_size]
            shard = Shard(f"{name}-{number:05d}.safetensors", [photo.image_id for photo in part])
            shards.append(shard)
            if finished.get(shard.file) != shard or not (output / shard.file).exists():
                began = progress.get_time()
                save_tensors(_encode(part, images, encoder, mirror, tensors, batch_size), output / shard.file)
                encoded += len(part)
                progress.update(task, rate=len(part) / max(progress.get_time() - began, 1e-9))
                write_index(output, name, FeatureIndex(encoder.id, tensors, shards))
            progress.advance(task, len(part))
    # Without what an earlier run with other photos left in it.
    write_index(output, name, FeatureIndex(encoder.id, tensors, shards))
    return encoded


def _tensors(encoder: PhotoEncoder, pooled_only: bool) -> tuple[str, ...]:
    """Which of an encoder's features are kept."""
    classes = ("class_logits",) if encoder.classifies else ()
    tokens = ("tokens", "mask") if encoder.variable else ("tokens",)
    return ("pooled", *classes) if pooled_only else (*tokens, "pooled", *classes)


def _shards_to_keep(output: Path, encoder: str, name: str, tensors: tuple[str, ...]) -> list[Shard]:
    kept: list[Shard] = []
    for other in (PLAIN, MIRROR):
        index = read_index(output, other)
        if index is None or not index.shards:
            continue
        if index.encoder != encoder:
            raise InvalidRequestError(
                f"{output} has features of {index.encoder}, not of {encoder}: choose another folder"
            )
        if index.tensors and index.tensors != tensors:
            raise InvalidRequestError(
                f"{output} has {', '.join(index.tensors)} of each photo, not {', '.join(tensors)}: choose "
                "another folder"
            )
        if other == name:
            kept = index.shards
    return kept


@torch.inference_mode()
def _encode(
    photos: Sequence[Photo],
    images: Path,
    encoder: PhotoEncoder,
    mirror: bool,
    tensors: Sequence[str],
    batch_size: int,
) -> dict[str, Tensor]:
    kept: dict[str, list[Tensor]] = {name: [] for name in tensors}
    for batch in _opened([images / photo.file for photo in photos], batch_size):
        features = _as_stored(encoder.encode(batch, mirror=mirror))
        for name in tensors:
            kept[name].append(features[name])
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _as_stored(features: VisionFeatures) -> dict[str, Tensor]:
    mask = {} if features.mask is None else {"mask": features.mask.cpu()}
    return {
        **mask,
        "tokens": features.tokens.bfloat16().cpu(),
        "pooled": features.pooled.float().cpu(),
        "class_logits": features.class_logits.float().cpu(),
    }


def _opened(paths: Sequence[Path], batch_size: int) -> Iterator[list[Image.Image]]:
    """The photos in batches; while one is encoded, the next is opened."""
    with ThreadPoolExecutor() as pool:
        batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
        coming = [pool.submit(_open, path) for path in batches[0]] if batches else []
        for following in [*batches[1:], []]:
            present = coming
            coming = [pool.submit(_open, path) for path in following]
            yield [image.result() for image in present]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidImageError(f"cannot read the photo {path}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when all photos are encoded, 1 when the work failed."""
    parser = argparse.ArgumentParser(prog="python -m training.features", description="Encode photos once.")
    parser.add_argument("--images", type=Path, required=True, help="folder the photos' files are relative to")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path, help="JSON Lines: image_id, file, split")
    source.add_argument("--karpathy", type=Path, help="dataset_coco.json, of which the training photos")
    parser.add_argument("--output", type=Path, required=True, help="folder for the features")
    parser.add_argument("--mirror", action="store_true", help="encode the mirror images (left is right)")
    parser.add_argument(
        "--vision",
        metavar="MODEL",
        help="an image encoder in the Hub's format: a folder, owner/model or owner/model@revision; without, "
        "the compact bundle's",
    )
    parser.add_argument("--revision", help="of the repository, if it is not named with an @")
    parser.add_argument("--pooled-only", action="store_true", help="no visual tokens: to retrieve by alone")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="photos encoded at once")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        if options.batch_size < 1:
            raise InvalidRequestError("--batch-size must be 1 or more")
        if options.revision and not options.vision:
            raise InvalidRequestError("--revision is of --vision")
        photos = _photos(options, console)
        encoder: PhotoEncoder = CompactPhotoEncoder()
        if options.vision:
            revision = f"@{options.revision}" if options.revision else ""
            encoder = HubPhotoEncoder(model_folder(options.vision + revision))
        encoded = extract(
            photos,
            options.images,
            options.output,
            encoder,
            mirror=options.mirror,
            pooled_only=options.pooled_only,
            batch_size=options.batch_size,
            console=console,
        )
    except PaelleraError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    console.print(f"{encoded} photos encoded, {len(photos) - encoded} were done before", highlight=False)
    console.print(f"encoder: {encoder.id}", highlight=False)
    return 0


def _photos(options: argparse.Namespace, console: Console) -> list[Photo]:
    if options.index:
        return read_photos(options.index)
    with Rejects() as rejects:
        photos = read_karpathy_photos(options.karpathy, options.images, rejects)
    for line in rejects.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return photos


if __name__ == "__main__":
    sys.exit(main())
