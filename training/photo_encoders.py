"""Image encoders that photos can be encoded with ahead of training: the compact one, any of the Hub's format.

Each has an id that says exactly which it is. It stands in the index of a feature folder, and a folder of
another encoder is refused.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image, ImageOps

from models.hub_fetch import parse_source, pin
from models.hub_files import verified_folder
from models.hub_weights import CONFIG, read_config
from models.manifest import record_file
from models.vision.efficientnet_lite import load_efficientnet_lite2
from models.vision.features import VisionFeatures
from models.vision.hub import HubVisionEncoder, load_hub_vision
from models.vision.preprocess import preprocess
from retrieval.errors import BundleError
from training.feature_cache import COMPACT_ENCODER

_PREPARATION = "preprocessor_config.json"


class PhotoEncoder(Protocol):
    """Photos to features; as the encoder that serves, but the photos may be mirrored first."""

    @property
    def id(self) -> str:
        """Names the weights: another encoder has another id."""
        ...

    @property
    def classifies(self) -> bool:
        """Does it give scores of classes?"""
        ...

    @property
    def variable(self) -> bool:
        """Have photos different numbers of visual tokens, the rest being padding?"""
        ...

    def encode(self, images: Sequence[Image.Image], *, mirror: bool) -> VisionFeatures: ...


class CompactPhotoEncoder:
    """The compact bundle's EfficientNet-Lite2."""

    id = COMPACT_ENCODER
    classifies = True
    variable = False

    def __init__(self) -> None:
        self._encoder = load_efficientnet_lite2()

    def encode(self, images: Sequence[Image.Image], *, mirror: bool) -> VisionFeatures:
        pixels = preprocess(images)  # (B, 3, H, W)
        features: VisionFeatures = self._encoder(pixels.flip(3) if mirror else pixels)
        return features


class HubPhotoEncoder:
    """An encoder in a folder of the Hub's format; on the GPU if there is one.

    Raises:
        BundleError: the folder holds no image encoder that is supported, or one of variable size.
    """

    classifies = False

    def __init__(self, folder: Path) -> None:
        self.id = hub_encoder_id(folder)
        encoder = load_hub_vision(folder)
        self.variable = encoder.variable
        self._encoder: HubVisionEncoder = encoder.to("cuda") if torch.cuda.is_available() else encoder

    def encode(self, images: Sequence[Image.Image], *, mirror: bool) -> VisionFeatures:
        return self._encoder.encode([ImageOps.mirror(image) for image in images] if mirror else images)


def hub_encoder_id(folder: Path) -> str:
    """Kind of model and a digest of its weights, its configuration and its preparation of photos.

    Raises:
        BundleError: it is no folder of the Hub's format.
    """
    kind = read_config(folder).get("model_type")
    weights = sorted(path.name for path in folder.glob("model*.safetensors"))
    if not weights:
        raise BundleError(f"{folder} has no weights in safetensors")
    preparation = [_PREPARATION] if (folder / _PREPARATION).is_file() else []
    digest = hashlib.sha256()
    for name in (CONFIG, *preparation, *weights):
        digest.update(f"{name} {record_file(folder / name).sha256}\n".encode())
    return f"{kind}-{digest.hexdigest()[:16]}"


def model_folder(source: str) -> Path:
    """The folder of a model: a local one, or a repository's (`owner/model` or `owner/model@revision`) in this
    machine's cache, fetched if it is not there.

    Raises:
        BundleError: no such repository, or it cannot be reached and is not in the cache.
    """
    if Path(source).is_dir():
        return Path(source)
    if "/" not in parse_source(source)[0]:
        raise BundleError(f"{source} is neither a folder nor a repository like owner/model")
    return verified_folder(pin(source))
