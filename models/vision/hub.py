"""Image encoders in the Hub's format: CLIP, SigLIP, SigLIP 2, DINOv2.

The towers and the preparation of images are transformers' own, as each repository's `config.json` and
`preprocessor_config.json` say. Visual tokens are `last_hidden_state`: of CLIP that is before
`post_layernorm` and without its projection, with the class token in front, as PAELLA and SmallCap read it.
The pooled vector is what the model compares with texts, or of DINOv2 its class token. SigLIP 2's NaFlex
models keep a photo's proportions: it has as many patches as fit, and padding behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from models.hub_loading import load_image_processor, load_pretrained
from models.hub_weights import read_config
from models.vision.features import Region, VisionFeatures
from retrieval.errors import BundleError


@dataclass(frozen=True)
class _Family:
    """What is known of a `model_type`."""

    classes: tuple[str, ...]  # of transformers, first those that project into the space of texts
    class_token: bool = False  # in front of the patches
    variable: bool = False  # photos have patches of different numbers


_CLIP = _Family(("CLIPVisionModelWithProjection", "CLIPVisionModel"), class_token=True)
_SIGLIP = _Family(("SiglipVisionModel",))
_NAFLEX = _Family(("Siglip2VisionModel",), variable=True)
_FAMILIES = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _NAFLEX,
    "siglip2_vision_model": _NAFLEX,
    "dinov2": _Family(("Dinov2Model",), class_token=True),
    "dinov2_with_registers": _Family(("Dinov2WithRegistersModel",), class_token=True),
}


class HubVisionEncoder(nn.Module):
    """A tower with its preparation of images: a `VisionEncoder`.

    Attributes:
        variable: whether photos have different numbers of tokens, the rest being padding.
    """

    def __init__(self, tower: nn.Module, processor: Any, *, class_token: bool, variable: bool) -> None:
        super().__init__()
        self.tower = tower.eval()
        self.variable = variable
        self._processor = processor
        registers = getattr(getattr(tower, "config", None), "num_register_tokens", 0)
        self._summaries = class_token + registers

    def shape(self) -> tuple[int, int]:
        """Visual tokens of an image, padding among them, and the width of each; tried on a black one."""
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
        prepared = self._processor(
            images=[image.convert("RGB") for image in images],
            return_tensors="pt",
            input_data_format="channels_last",
        )
        weight = next(self.tower.parameters())
        given = {name: prepared[name].to(weight.device) for name in self._processor.model_input_names}
        given["pixel_values"] = given["pixel_values"].to(weight.dtype)
        output = self.tower(**given)
        tokens: Tensor = output.last_hidden_state
        pooled = getattr(output, "image_embeds", None)
        pooled = (output.pooler_output if pooled is None else pooled).float()
        return VisionFeatures(
            tokens=tokens,
            pooled=pooled,
            class_logits=pooled.new_zeros(len(pooled), 0),
            grids=self._grids(prepared),
            summaries=self._summaries,
            mask=given["pixel_attention_mask"].bool() if self.variable else None,
            regions=None if self.variable else tuple(self._region(image) for image in images),
        )

    def _grids(self, prepared: Any) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each photo's patches."""
        if self.variable:
            return tuple((rows, columns) for rows, columns in prepared["spatial_shapes"].tolist())
        pixels = prepared["pixel_values"]
        config: Any = self.tower.config
        sides = (pixels.shape[2] // config.patch_size, pixels.shape[3] // config.patch_size)
        return (sides,) * len(pixels)

    def _region(self, image: Image.Image) -> Region:
        """What is left of a photo when its middle has been cut out; beyond 0 and 1 where it was padded."""
        settings = self._processor
        if not getattr(settings, "do_center_crop", False):
            return 0.0, 0.0, 1.0, 1.0
        width, height = image.size
        if settings.do_resize and settings.size.get("shortest_edge"):
            scale = settings.size["shortest_edge"] / min(width, height)
            width, height = int(width * scale), int(height * scale)
        elif settings.do_resize:
            width, height = settings.size["width"], settings.size["height"]
        across, down = settings.crop_size["width"] / width, settings.crop_size["height"] / height
        return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def load_hub_vision(folder: Path, dtype: torch.dtype = torch.float32) -> HubVisionEncoder:
    """The image encoder in a folder of the Hub's format, frozen; of an image-text model its image tower.

    Raises:
        BundleError: transformers is missing, another kind of model, or weights are missing.
    """
    kind = read_config(folder).get("model_type")
    if kind not in _FAMILIES:
        raise BundleError(f"{folder} holds a {kind!r}; image encoders are {', '.join(_FAMILIES)}")
    family = _FAMILIES[kind]
    return HubVisionEncoder(
        load_pretrained(family.classes, folder, "image encoder", dtype=dtype),
        load_image_processor(folder),
        class_token=family.class_token,
        variable=family.variable,
    )
