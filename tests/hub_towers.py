"""Tiny image, image-text and text models in the Hub's format, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from hub_tokenizers import byte_level, xglm
from safetensors.torch import save_file
from torch import nn

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


def save_siglip2(folder: Path) -> Any:
    """A SigLIP 2 of any size (NaFlex): up to twelve patches of 4 pixels."""
    xglm(folder)
    text = {**_TEXT, "projection_size": 32, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = transformers.Siglip2Config(
        text_config=text, vision_config={**_SHAPE, "patch_size": 4, "num_patches": 16}
    )
    processor = transformers.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=12)
    return _save(transformers.Siglip2Model(config), processor, folder)


def save_sentence_transformer(
    folder: Path,
    *,
    pooling: str = "mean_tokens",
    activation: str = "linear.Identity",
    dimension: int = 24,
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Dense"),
) -> tuple[Any, nn.Linear]:
    """As sentence-transformers saves clip-ViT-B-32-multilingual-v1: a DistilBERT and what comes behind it."""
    xglm(folder)
    config = transformers.DistilBertConfig(
        vocab_size=400, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=TEXT_LENGTH
    )
    model = _drawn(transformers.DistilBertModel(config))
    model.save_pretrained(folder)
    paths = [f"{number}_{name}" if number else "" for number, name in enumerate(modules)]
    _write(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
            for n, (name, path) in enumerate(zip(modules, paths, strict=True))
        ],
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})
    for path in paths[1:]:
        (folder / path).mkdir()
    modes = dict.fromkeys(("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"), False)
    settings = {f"pooling_mode_{name}": chosen for name, chosen in {**modes, pooling: True}.items()}
    _write(folder / paths[1] / "config.json", {"word_embedding_dimension": 32, **settings})
    dense = _drawn(nn.Linear(32, dimension, bias=False))
    if "Dense" in modules:
        place = folder / paths[modules.index("Dense")]
        names = {"in_features": 32, "out_features": dimension, "bias": False}
        _write(place / "config.json", {**names, "activation_function": f"torch.nn.modules.{activation}"})
        save_file({"linear.weight": dense.weight.detach()}, place / "model.safetensors")
    return model, dense


def save_mclip(folder: Path, base: str = "xlm-roberta-large") -> tuple[Any, nn.Linear]:
    """As M-CLIP: an XLM-R whose shape the configuration does not tell, and a linear map."""
    xglm(folder)
    config = transformers.XLMRobertaConfig(
        vocab_size=400,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=26,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model, mapped = _drawn(transformers.XLMRobertaModel(config)), _drawn(nn.Linear(128, 24))
    weights = {f"transformer.{name}": weight for name, weight in model.state_dict().items()}
    weights |= {f"LinearTransformation.{name}": weight for name, weight in mapped.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    document = {"model_type": "M-CLIP", "modelBase": base, "numDims": 24, "transformerDimensions": 128}
    _write(folder / "config.json", document)
    return model, mapped


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
    _drawn(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def _drawn(model: Any) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
