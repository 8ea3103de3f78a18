"""Tiny image and image-text models in the Hub's format, with random weights."""

from pathlib import Path
from typing import Any

import torch
import transformers
from hub_tokenizers import byte_level, xglm

TEXT_LENGTH = 24
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_IMAGE = {**_SHAPE, "image_size": 16, "patch_size": 8}
_TEXT = {**_SHAPE, "max_position_embeddings": TEXT_LENGTH, "vocab_size": 400}


def save_clip(folder: Path) -> Any:
    """A CLIP of 16 pixels: four patches and the class token, 24 dimensions for photos and texts."""
    byte_level(folder, start="<|begin|>", end="<|end|>", close=True)
    text = {**_TEXT, "bos_token_id": 2, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={**text, "projection_dim": 24},
        vision_config={**_IMAGE, "projection_dim": 24},
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.2, 0.3, 0.25],
    )
    return _save(transformers.CLIPModel(config), processor, folder)


def save_siglip(folder: Path) -> Any:
    """A SigLIP of 16 pixels: four patches."""
    xglm(folder)
    text = {**_TEXT, "projection_size": 32, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = transformers.SiglipConfig(text_config=text, vision_config=_IMAGE)
    processor = transformers.SiglipImageProcessorPil(
        size={"height": 16, "width": 16}, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return _save(transformers.SiglipModel(config), processor, folder)


def save_dinov2(folder: Path) -> Any:
    """A DINOv2 of 16 pixels: four patches and the class token."""
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    settings = {name: value for name, value in _IMAGE.items() if name != "intermediate_size"}
    return _save(transformers.Dinov2Model(transformers.Dinov2Config(**settings)), processor, folder)


def _save(model: Any, processor: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model
