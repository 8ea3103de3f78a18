"""Image encoders in the Hub's format: tiny ones with random weights, photos prepared as their files say."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hub_towers import TEXT_LENGTH, save_clip, save_dinov2, save_siglip, save_siglip2
from PIL import Image

from models.text.hub import load_hub_text
from models.vision.hub import load_hub_vision
from retrieval.errors import BundleError
from retrieval.image_text import ImageTextEmbedder


@pytest.fixture
def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        for size in ((40, 60), (33, 21))
    ]


def prepared(
    photo: Image.Image, size: int, mean: list[float], std: list[float], *, crop: bool
) -> torch.Tensor:
    """By hand: CLIP scales the shorter side and crops the middle, the others squash."""
    width, height = photo.size
    if crop:
        short = min(width, height)
        width, height = int(size * width / short), int(size * height / short)
        photo = photo.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        photo = photo.crop((left, top, left + size, top + size))
    else:
        photo = photo.resize((size, size), Image.Resampling.BICUBIC)
    values = np.asarray(photo, dtype=np.float32) / 255
    return torch.from_numpy(((values - mean) / std).astype(np.float32)).permute(2, 0, 1)


def test_clip_tokens_are_those_before_the_last_norm(tmp_path: Path, photos: list[Image.Image]) -> None:
    model = save_clip(tmp_path)
    features = load_hub_vision(tmp_path).encode(photos)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    pixels = torch.stack([prepared(photo, 16, mean, std, crop=True) for photo in photos])
    inside: dict[str, Any] = {}
    tower = model.vision_model
    tower.post_layernorm.register_forward_pre_hook(lambda _, args: inside.update(cls=args[0]))
    with torch.inference_mode():
        expected = tower(pixel_values=pixels)
        embedded = model.visual_projection(expected.pooler_output)
    assert features.tokens.shape == (2, 5, 32)
    torch.testing.assert_close(features.tokens, expected.last_hidden_state, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(features.tokens[:, 0], inside["cls"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(features.pooled, embedded, atol=1e-3, rtol=1e-3)
    assert (features.grids, features.summaries) == (((2, 2), (2, 2)), 1)
    # Of 60 x 40 pixels the middle 40 are seen, and of 21 x 33 the middle 21 (16 of 25 when scaled).
    expected_regions = ((1 / 6, 0, 5 / 6, 1), (0, 4.5 / 25, 1, 20.5 / 25))
    assert features.regions is not None
    for found, by_hand in zip(features.regions, expected_regions, strict=True):
        assert found == pytest.approx(by_hand)


def test_siglip_and_dinov2(tmp_path: Path, photos: list[Image.Image]) -> None:
    for folder, save, crop in (
        (tmp_path / "siglip", save_siglip, False),
        (tmp_path / "dinov2", save_dinov2, True),
    ):
        model = save(folder)
        features = load_hub_vision(folder).encode(photos)
        pixels = torch.stack([prepared(photo, 16, [0.5] * 3, [0.5] * 3, crop=crop) for photo in photos])
        with torch.inference_mode():
            expected = getattr(model, "vision_model", model)(pixel_values=pixels)
        torch.testing.assert_close(features.tokens, expected.last_hidden_state, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(features.pooled, expected.pooler_output, atol=1e-3, rtol=1e-3)
        assert (features.grids, features.summaries) == (((2, 2), (2, 2)), int(folder.name == "dinov2"))


def test_siglip_2_keeps_proportions_and_says_what_is_padding(
    tmp_path: Path, photos: list[Image.Image]
) -> None:
    model = save_siglip2(tmp_path)
    photos = [*photos, Image.new("RGB", (100, 10), "red")]
    features = load_hub_vision(tmp_path).encode(photos)
    assert features.grids == ((3, 4), (4, 3), (1, 10))
    assert features.mask is not None
    assert features.mask.sum(dim=1).tolist() == [12, 12, 10]
    assert (features.regions, features.summaries) == (None, 0)
    for row, (photo, (rows, columns)) in enumerate(zip(photos, features.grids, strict=True)):
        # By hand and without padding: patches row by row, each with its pixels row by row, colours last.
        scaled = photo.resize((4 * columns, 4 * rows), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.asarray(scaled, dtype=np.float32) / 255 - 0.5) / 0.5
        patches = values.view(rows, 4, columns, 4, 3).transpose(1, 2).reshape(1, rows * columns, 48)
        with torch.inference_mode():
            expected = model.vision_model(
                pixel_values=patches,
                pixel_attention_mask=torch.ones(1, rows * columns),
                spatial_shapes=torch.tensor([[rows, columns]]),
            )
        tokens = features.tokens[row, : rows * columns]
        torch.testing.assert_close(tokens, expected.last_hidden_state[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(features.pooled[row], expected.pooler_output[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("save", [save_clip, save_siglip2])
def test_a_photo_alone_is_what_it_is_in_a_batch(tmp_path: Path, photos: list[Image.Image], save: Any) -> None:
    save(tmp_path)
    encoder = load_hub_vision(tmp_path)
    together = encoder.encode(photos)
    for row, photo in enumerate(photos):
        alone = encoder.encode([photo.convert("RGBA")])
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], atol=1e-4, rtol=1e-4)


def test_clip_without_a_projection(tmp_path: Path, photos: list[Image.Image]) -> None:
    model = save_clip(tmp_path)
    transformers.CLIPVisionModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert load_hub_vision(tmp_path).encode(photos).pooled.shape == (
        2,
        model.config.vision_config.hidden_size,
    )


def test_photos_and_captions_meet_in_one_space(tmp_path: Path, photos: list[Image.Image]) -> None:
    for kind, save in (("clip", save_clip), ("siglip", save_siglip), ("siglip2", save_siglip2)):
        folder = tmp_path / kind
        model = save(folder)
        features = load_hub_vision(folder).encode(photos)
        dimension = features.pooled.shape[1]
        embedder = ImageTextEmbedder("tiny", dimension, partial(load_hub_text, folder))
        texts = ["A cat sits on a mat.", "Two dogs run: fast!", "A cat " * 60]
        queries = embedder.embed_pooled(features.pooled, features.class_logits)
        vectors = embedder.embed_texts(texts)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        # SigLIP's models were trained on lower case.
        given = texts if kind == "clip" else [text.lower() for text in texts]
        encoded = tokenizer(
            given, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        )
        with torch.inference_mode():
            inputs = dict(encoded) if kind == "clip" else {"input_ids": encoded["input_ids"]}
            expected = model.get_text_features(**inputs).pooler_output
        expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(queries.vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(embedder.embed_texts(texts[:1]), vectors[:1], atol=1e-4)
        assert embedder.embed_texts([]).shape == (0, embedder.dimension)


def test_what_does_not_fit_is_named(tmp_path: Path, photos: list[Image.Image]) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        load_hub_vision(tmp_path)
    save_dinov2(tmp_path)
    with pytest.raises(BundleError, match="compares no texts"):
        load_hub_text(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(BundleError, match="holds a 'vit_mae'"):
        load_hub_vision(tmp_path)
    save_clip(tmp_path / "clip")
    embedder = ImageTextEmbedder("tiny", 7, lambda: load_hub_text(tmp_path / "clip"))
    with pytest.raises(BundleError, match="must share one space"):
        embedder.embed_texts(["A cat."])
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="no image encoder"):
        load_hub_vision(tmp_path / "clip")
