"""Encode a folder of photos once, so that training reads features instead of running the vision encoder.

Layout of an output folder, one index for the photos as they are and one for their mirror images:

    plain.json  mirror.json         which photos are in which shard, in row order
    plain-00000.safetensors ...     tokens (n, 81, 1280) bfloat16, pooled (n, 1280) float32,
                                    class_logits (n, 1000) float32

A shard is entered in the index only once it is whole on disk, so a killed run is taken up where it stopped.
Run as `python -m training.features`. Knows no captions and no training loop.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from torch import Tensor

from models.vision.efficientnet_lite import WEIGHTS_SHA256, load_efficientnet_lite2
from models.vision.features import VisionFeatures
from models.vision.preprocess import preprocess
from retrieval.errors import InvalidImageError, InvalidRequestError, PaelleraError
from retrieval.files import replacing
from training.files import save_tensors
from training.photo_index import Photo, read_photos

Encoder = Callable[[Tensor], VisionFeatures]  # pixels (B, 3, H, W) -> features
ENCODER_ID = f"efficientnet-lite2-{WEIGHTS_SHA256[:8]}"
SHARD_SIZE = 256  # photos; about 55 MB
BATCH_SIZE = 32


@dataclass(frozen=True)
class Shard:
    file: str
    image_ids: list[str]


def extract(
    photos: Sequence[Photo],
    images: Path,
    output: Path,
    encoder: Encoder,
    *,
    mirror: bool = False,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    console: Console | None = None,
) -> int:
    """Encode `photos` into shards in `output`; shards of an earlier run with the same photos are kept.

    Returns:
        How many photos were encoded now.

    Raises:
        InvalidImageError: a photo is missing or damaged. What was done before it is kept.
    """
    name = "mirror" if mirror else "plain"
    output.mkdir(parents=True, exist_ok=True)
    finished = {shard.file: shard for shard in _read_index(output, name)}
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
            if finished.get(shard.file) != shard or not (output / shard.file).exists():
                began = progress.get_time()
                tensors = _encode(part, images, encoder, mirror=mirror, batch_size=batch_size)
                save_tensors(tensors, output / shard.file)
                encoded += len(part)
                progress.update(task, rate=len(part) / max(progress.get_time() - began, 1e-9))
                shards.append(shard)
                _write_index(output, name, shards)
            else:
                shards.append(shard)
            progress.advance(task, len(part))
    _write_index(output, name, shards)  # without what an earlier run with other photos left in it
    return encoded


class FeatureCache:
    """Features by image id, read from memory-mapped shards: opening is quick and the page cache is shared by
    all processes. Every method takes ids in any order, repeated if wanted.

    Raises (all methods):
        InvalidRequestError: an id was not extracted (with `mirror`, if so asked).
    """

    def __init__(self, directory: Path) -> None:
        """Open the folder `extract` wrote.

        Raises:
            InvalidRequestError: it holds no features of this encoder, or a shard is missing or damaged.
        """
        self.directory = directory
        self._rows: dict[bool, dict[str, tuple[int, int]]] = {}  # mirror -> image id -> (shard, row)
        self._shards: list[dict[str, Tensor]] = []
        for mirror, name in ((False, "plain"), (True, "mirror")):
            rows = self._rows[mirror] = {}
            for shard in _read_index(directory, name):
                for row, image_id in enumerate(shard.image_ids):
                    rows[image_id] = (len(self._shards), row)
                self._shards.append(_map_shard(directory / shard.file))
        if not self._shards:
            raise InvalidRequestError(
                f"no {ENCODER_ID} features in {directory}; make them with: python -m training.features"
            )

    def image_ids(self, *, mirror: bool = False) -> list[str]:
        """The ids extracted, in the order of the photo index."""
        return list(self._rows[mirror])

    def tokens(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, 81, 1280) bfloat16."""
        return self._gather("tokens", image_ids, mirror)

    def pooled(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, 1280) float32."""
        return self._gather("pooled", image_ids, mirror)

    def class_logits(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, 1000) float32."""
        return self._gather("class_logits", image_ids, mirror)

    def _gather(self, name: str, image_ids: Sequence[str], mirror: bool) -> Tensor:
        rows = self._rows[mirror]
        try:
            places = [rows[image_id] for image_id in image_ids]
        except KeyError as error:
            option = " --mirror" if mirror else ""
            raise InvalidRequestError(
                f"no features of image {error} in {self.directory}; make them with: "
                f"python -m training.features{option}"
            ) from error
        if not places:
            return self._shards[0][name][:0]
        return torch.stack([self._shards[shard][name][row] for shard, row in places])


@torch.inference_mode()
def _encode(
    photos: Sequence[Photo], images: Path, encoder: Encoder, *, mirror: bool, batch_size: int
) -> dict[str, Tensor]:
    batches: list[VisionFeatures] = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        pixels = preprocess([_open(images / photo.file) for photo in batch])  # (B, 3, H, W)
        batches.append(encoder(pixels.flip(3) if mirror else pixels))
    return {
        "tokens": torch.cat([features.tokens.bfloat16() for features in batches]),
        "pooled": torch.cat([features.pooled.float() for features in batches]),
        "class_logits": torch.cat([features.class_logits.float() for features in batches]),
    }


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidImageError(f"cannot read the photo {path}: {error}") from error


def _map_shard(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidRequestError(
            f"the features in {path} are missing or damaged; delete the file and extract again"
        ) from error


def _read_index(directory: Path, name: str) -> list[Shard]:
    """The finished shards; none if there is no index or another encoder wrote it."""
    path = directory / f"{name}.json"
    if not path.exists():
        return []
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["encoder"] != ENCODER_ID:
            return []
        return [Shard(shard["file"], shard["image_ids"]) for shard in index["shards"]]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError(f"{path} is damaged; delete it and extract the features again") from error


def _write_index(directory: Path, name: str, shards: Sequence[Shard]) -> None:
    index = {"encoder": ENCODER_ID, "shards": [asdict(shard) for shard in shards]}
    with replacing(directory / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when all photos are encoded, 1 when the work failed."""
    parser = argparse.ArgumentParser(prog="python -m training.features", description="Encode photos once.")
    parser.add_argument("--images", type=Path, required=True, help="folder the index's files are relative to")
    parser.add_argument("--index", type=Path, required=True, help="JSON Lines: image_id, file, split")
    parser.add_argument("--output", type=Path, required=True, help="folder for the features")
    parser.add_argument("--mirror", action="store_true", help="encode the mirror images (left is right)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        photos = read_photos(options.index)
        encoder = load_efficientnet_lite2()
        encoded = extract(
            photos, options.images, options.output, encoder, mirror=options.mirror, console=console
        )
    except PaelleraError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    console.print(f"{encoded} photos encoded, {len(photos) - encoded} were done before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
