"""Features of photos on disk: written once by `python -m training.features`, read at every step of training.

Layout of a folder, one index for the photos as they are and one for their mirror images:

    plain.json  mirror.json         the encoder, the names of the tensors, and which photos are in which
                                    shard, in row order
    plain-00000.safetensors ...     of n photos: tokens (n, N, D) bfloat16, pooled (n, P) float32,
                                    class_logits (n, C) float32 if the encoder has a classifier,
                                    mask (n, N) bool if photos have different numbers of tokens

A shard is entered in the index only once it is whole on disk. Knows no encoder and no photo.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.vision.efficientnet_lite import WEIGHTS_SHA256
from retrieval.errors import InvalidRequestError
from retrieval.files import replacing

COMPACT_ENCODER = f"efficientnet-lite2-{WEIGHTS_SHA256[:8]}"
PLAIN, MIRROR = "plain", "mirror"


@dataclass(frozen=True)
class Shard:
    file: str
    image_ids: list[str]


@dataclass(frozen=True)
class FeatureIndex:
    """What is in a folder. `tensors` is empty in the folders of the first versions, which held all three."""

    encoder: str
    tensors: tuple[str, ...]
    shards: list[Shard]


def read_index(directory: Path, name: str) -> FeatureIndex | None:
    """The index of that name, None if there is none.

    Raises:
        InvalidRequestError: it is damaged.
    """
    path = directory / f"{name}.json"
    if not path.exists():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        shards = [Shard(shard["file"], shard["image_ids"]) for shard in index["shards"]]
        return FeatureIndex(str(index["encoder"]), tuple(index.get("tensors", ())), shards)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequestError(f"{path} is damaged; delete it and extract the features again") from error


def write_index(directory: Path, name: str, index: FeatureIndex) -> None:
    """Replace the index of that name in one step."""
    with replacing(directory / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(index)), encoding="utf-8")


class FeatureCache:
    """Features by image id, read from memory-mapped shards: opening is quick and the page cache is shared by
    all processes. Every method takes ids in any order, repeated if wanted.

    Raises (all methods):
        InvalidRequestError: an id was not extracted (with `mirror`, if so asked), or not that tensor.
    """

    def __init__(self, directory: Path, encoder: str = COMPACT_ENCODER) -> None:
        """Open the folder `training.features.extract` wrote.

        Args:
            encoder: whose features they must be (training/photo_encoders.py says what it is called).

        Raises:
            InvalidRequestError: it holds no features of this encoder, or a shard is missing or damaged.
        """
        self.directory = directory
        self.encoder = encoder
        self._rows: dict[bool, dict[str, tuple[int, int]]] = {}  # mirror -> image id -> (shard, row)
        self._shards: list[dict[str, Tensor]] = []
        found = None
        for mirror, name in ((False, PLAIN), (True, MIRROR)):
            rows = self._rows[mirror] = {}
            index = read_index(directory, name)
            if index is None or index.encoder != encoder:
                found = found or (index and index.encoder)
                continue
            for shard in index.shards:
                for row, image_id in enumerate(shard.image_ids):
                    rows[image_id] = (len(self._shards), row)
                self._shards.append(_map_shard(directory / shard.file))
        if not self._shards:
            instead = f" (they are of {found})" if found else ""
            raise InvalidRequestError(
                f"no {encoder} features in {directory}{instead}; make them with: python -m training.features"
            )

    def image_ids(self, *, mirror: bool = False) -> list[str]:
        """The ids extracted, in the order of the photo index."""
        return list(self._rows[mirror])

    def tokens(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, N, D) bfloat16."""
        return self._gather("tokens", image_ids, mirror)

    def mask(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor | None:
        """(B, N) bool, True at visual tokens that are not padding; None if nothing is."""
        return self._gather("mask", image_ids, mirror) if "mask" in self._shards[0] else None

    def pooled(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, P) float32."""
        return self._gather("pooled", image_ids, mirror)

    def class_logits(self, image_ids: Sequence[str], *, mirror: bool = False) -> Tensor:
        """(B, C) float32."""
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
        try:
            if not places:
                return self._shards[0][name][:0]
            return torch.stack([self._shards[shard][name][row] for shard, row in places])
        except KeyError as error:
            raise InvalidRequestError(
                f"the features in {self.directory} have no {error}: extract them again, into another folder"
            ) from error


def _map_shard(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidRequestError(
            f"the features in {path} are missing or damaged; delete the file and extract again"
        ) from error
