"""Image encoders in the Hub's format: CLIP, SigLIP (and the SigLIP 2 models of fixed size), DINOv2.

The towers and the preparation of images are transformers' own, as each repository's `config.json` and
`preprocessor_config.json` say. Visual tokens are `last_hidden_state`: of CLIP that is before
`post_layernorm` and without its projection, with the class token in front, as PAELLA and SmallCap read it.
The pooled vector is what the model compares with texts, or of DINOv2 its class token.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from models.hub_weights import read_config
from models.vision.features import VisionFeatures
from retrieval.errors import BundleError
from retrieval.hub_library import transformers_library

# Model types in `config.json` → classes of transformers, first those that project into the space of texts.
_CLASSES = {
    "clip": ("CLIPVisionModelWithProjection", "CLIPVisionModel"),
    "clip_vision_model": ("CLIPVisionModelWithProjection", "CLIPVisionModel"),
    "siglip": ("SiglipVisionModel",),
    "siglip_vision_model": ("SiglipVisionModel",),
    "dinov2": ("Dinov2Model",),
    "dinov2_with_registers": ("Dinov2WithRegistersModel",),
}


class HubVisionEncoder(nn.Module):
    """A tower with its preparation of images: a `VisionEncoder`."""

    def __init__(self, tower: nn.Module, processor: Any) -> None:
        super().__init__()
        self.tower = tower.eval()
        self._processor = processor

    def shape(self) -> tuple[int, int]:
        """Visual tokens of an image, and the width of each; tried on a black one."""
        tokens = self.encode([Image.new("RGB", (8, 8))]).tokens
        return tokens.shape[1], tokens.shape[2]

    def pooled_width(self) -> int:
        """Of the vector that stands for a whole image."""
        return self.encode([Image.new("RGB", (8, 8))]).pooled.shape[1]

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> VisionFeatures:
        """Visual tokens and pooled vectors of photos; this encoder has no classifier.

        Raises:
            ValueError: `images` is empty.
        """
        if not images:
            raise ValueError("no image to encode")
        pixels = self._processor(
            images=[image.convert("RGB") for image in images],
            return_tensors="pt",
            input_data_format="channels_last",
        )["pixel_values"]
        weight = next(self.tower.parameters())
        output = self.tower(pixel_values=pixels.to(weight.device, weight.dtype))
        tokens = output.last_hidden_state
        pooled = getattr(output, "image_embeds", None)
        pooled = (output.pooler_output if pooled is None else pooled).float()
        side = math.isqrt(tokens.shape[1])
        return VisionFeatures(
            tokens=tokens,
            pooled=pooled,
            class_logits=pooled.new_zeros(len(pooled), 0),
            grid=(side, side) if side * side == tokens.shape[1] else None,
        )


def load_hub_vision(folder: Path, dtype: torch.dtype = torch.float32) -> HubVisionEncoder:
    """The image encoder in a folder of the Hub's format, frozen; of an image-text model its image tower.

    Raises:
        BundleError: transformers is missing, another kind of model, or weights are missing.
    """
    kind = read_config(folder).get("model_type")
    if kind not in _CLASSES:
        raise BundleError(f"{folder} holds a {kind!r}; image encoders are {', '.join(_CLASSES)}")
    library = transformers_library()
    missing: list[str] = []
    for name in _CLASSES[kind]:
        try:
            tower, loaded = getattr(library, name).from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            processor = library.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise BundleError(f"{folder} holds no image encoder: {' '.join(str(error).split())}") from error
        missing = sorted(loaded["missing_keys"])
        if not missing:
            return HubVisionEncoder(tower.requires_grad_(False), processor)
    raise BundleError(f"{folder}: the image encoder's weights lack {', '.join(missing[:3])}")
