"""Fusion encoders: which information may cross, and by which way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.fusion.attention import attention, merge_heads, split_heads
from models.fusion.bimodal import (
    BimodalEncoder,
    Gates,
    dual_stream_inter,
    dual_stream_intra,
    single_stream,
)
from models.fusion.bottleneck_encoder import BottleneckEncoder
from models.fusion.resampler import PerceiverResampler
from models.fusion.token_types import TokenTypes

WIDTH, HEADS = 16, 4


def sequences(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, length, WIDTH, generator=generator) for length in lengths]


def strong(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def reaches(output: Tensor, source: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(output.sum(), source, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.abs().sum() > 0)


def test_a_tied_single_stream_is_self_attention_over_the_concatenation() -> None:
    encoder = strong(BimodalEncoder(WIDTH, HEADS, single_stream(2), tied=True))
    vision, text = sequences(5, 3)
    x = torch.cat([vision, text], dim=1)
    for layer in encoder.layers:  # type: ignore[union-attr]
        weights = layer.vision
        query, key, value = (split_heads(p, HEADS) for p in weights.project(x).chunk(3, dim=-1))
        attended, _ = attention(query, key, value, scale=(WIDTH // HEADS) ** -0.5)
        x = weights(x, merge_heads(attended))
    encoded_vision, encoded_text, _ = encoder(vision, text)
    assert torch.allclose(torch.cat([encoded_vision, encoded_text], dim=1), x, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("preset", [single_stream, dual_stream_intra, dual_stream_inter])
def test_blocked_scores_are_exactly_zero(preset: "type", tied: bool) -> None:
    gates: Sequence[Gates] = preset(2)
    encoder = strong(BimodalEncoder(WIDTH, HEADS, gates, tied=tied))
    vision, text = sequences(5, 3)
    _, _, weights = encoder(vision, text, need_weights=True)
    for gate, layer in zip(gates, weights, strict=True):
        assert torch.allclose(layer.sum(dim=-1), torch.ones(2, HEADS, 8))
        for open_, block in (
            (gate.vision_to_vision, layer[..., :5, :5]),
            (gate.vision_to_text, layer[..., :5, 5:]),
            (gate.text_to_vision, layer[..., 5:, :5]),
            (gate.text_to_text, layer[..., 5:, 5:]),
        ):
            assert bool((block > 0).all()) if open_ else bool((block == 0).all())


def test_two_streams_meet_only_across() -> None:
    vision, text = (x.requires_grad_() for x in sequences(5, 3))
    intra = strong(BimodalEncoder(WIDTH, HEADS, dual_stream_intra(2), tied=False))
    inter = strong(BimodalEncoder(WIDTH, HEADS, dual_stream_inter(2), tied=False))
    assert not reaches(intra(vision, text)[0], text)
    assert not reaches(intra(vision, text)[1], vision)
    assert reaches(inter(vision, text)[0], text)
    assert reaches(inter(vision, text)[1], vision)


@pytest.mark.parametrize("tied", [True, False])
def test_padding_is_not_seen(tied: bool) -> None:
    encoder = strong(BimodalEncoder(WIDTH, HEADS, single_stream(2), tied=tied))
    vision, text = sequences(5, 3)
    padded = torch.cat([text, torch.full((2, 2, WIDTH), 9.0)], dim=1)
    mask = torch.tensor([[True] * 8 + [False] * 2]).expand(2, -1)
    bare, whole = encoder(vision, text), encoder(vision, padded, mask)
    assert torch.allclose(whole[0], bare[0], atol=1e-5)
    assert torch.allclose(whole[1][:, :3], bare[1], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_bimodal_parameters_are_as_many_as_it_says(tied: bool) -> None:
    encoder = BimodalEncoder(WIDTH, HEADS, single_stream(3), tied=tied)
    expected = BimodalEncoder.num_parameters(WIDTH, 3, tied=tied)
    assert sum(p.numel() for p in encoder.parameters()) == expected


def bottleneck_encoder(
    modalities: int = 2,
    layers: int = 3,
    fusion_layer: int = 1,
    update: Literal["symmetric", "sequential"] = "symmetric",
) -> BottleneckEncoder:
    encoder = BottleneckEncoder(
        modalities, WIDTH, HEADS, layers, fusion_layer=fusion_layer, num_bottlenecks=2, update=update
    )
    strong(encoder)
    return encoder


@pytest.mark.parametrize("update", ["symmetric", "sequential"])
def test_modalities_meet_through_the_bottlenecks(update: Literal["symmetric", "sequential"]) -> None:
    inputs = [x.requires_grad_() for x in sequences(5, 3, 4)]
    encoded, _ = bottleneck_encoder(3, update=update)(inputs)
    for output in encoded:
        assert all(reaches(output, source) for source in inputs)


def test_without_a_fused_layer_nothing_crosses() -> None:
    inputs = [x.requires_grad_() for x in sequences(5, 3)]
    (vision, text), _ = bottleneck_encoder(fusion_layer=3)(inputs)
    assert not reaches(vision, inputs[1])
    assert not reaches(text, inputs[0])


def test_one_fused_layer_is_not_enough_to_cross() -> None:
    # A modality reads in layer l what the others wrote into the bottlenecks in layer l - 1.
    inputs = [x.requires_grad_() for x in sequences(5, 3)]
    (vision, text), _ = bottleneck_encoder(layers=2, fusion_layer=1)(inputs)
    assert not reaches(vision, inputs[1])
    assert not reaches(text, inputs[0])


def test_sequential_bottlenecks_cross_within_a_layer_in_their_order() -> None:
    inputs = [x.requires_grad_() for x in sequences(5, 3)]
    (vision, text), _ = bottleneck_encoder(layers=1, fusion_layer=0, update="sequential")(inputs)
    assert reaches(text, inputs[0])
    assert not reaches(vision, inputs[1])


def test_symmetric_bottlenecks_do_not_depend_on_the_order() -> None:
    encoder = bottleneck_encoder(layers=1, fusion_layer=0)
    vision, text = sequences(5, 3)
    _, bottlenecks = encoder([vision, text])
    (layer,) = encoder.layers
    layer[0], layer[1] = layer[1], layer[0]  # type: ignore[index, operator]
    _, swapped = encoder([text, vision])
    assert torch.allclose(bottlenecks, swapped, atol=1e-6)


def test_padded_tokens_of_a_modality_are_not_seen() -> None:
    encoder = bottleneck_encoder()
    vision, text = sequences(5, 3)
    padded = torch.cat([text, torch.full((2, 2, WIDTH), 9.0)], dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 2]).expand(2, -1)
    (vision_bare, text_bare), _ = encoder([vision, text])
    (vision_padded, text_padded), _ = encoder([vision, padded], [None, mask])
    assert torch.allclose(vision_bare, vision_padded, atol=1e-5)
    assert torch.allclose(text_bare, text_padded[:, :3], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("update", ["symmetric", "sequential"])
def test_a_bottleneck_encoder_shows_its_weights(update: Literal["symmetric", "sequential"]) -> None:
    encoder = bottleneck_encoder(update=update)
    inputs = sequences(5, 3)
    sequences_fast, bottlenecks_fast = encoder(inputs)
    encoded, bottlenecks, weights = encoder(inputs, need_weights=True)
    torch.testing.assert_close(bottlenecks, bottlenecks_fast, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded, sequences_fast, atol=1e-5, rtol=0)
    assert [[w.shape[3] for w in layer] for layer in weights] == [[5, 3], [7, 5], [7, 5]]
    for one in (w for layer in weights for w in layer):
        torch.testing.assert_close(one.sum(dim=-1), torch.ones(2, HEADS, one.shape[2]))


@torch.no_grad()
def test_a_resampler_shows_its_weights() -> None:
    resampler = strong(PerceiverResampler(12, WIDTH, 3, 2, HEADS))
    visual = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(2))
    latents, weights = resampler(visual, need_weights=True)
    torch.testing.assert_close(latents, resampler(visual), atol=1e-5, rtol=0)
    assert [w.shape for w in weights] == [(2, HEADS, 3, 6 + 3)] * 2
    torch.testing.assert_close(weights[1].sum(dim=-1), torch.ones(2, HEADS, 3))


def test_bottleneck_parameters_are_as_many_as_it_says() -> None:
    expected = BottleneckEncoder.num_parameters(2, WIDTH, 3, 2)
    assert sum(p.numel() for p in bottleneck_encoder().parameters()) == expected


def test_scaled_token_types_begin_with_almost_nothing() -> None:
    inputs = sequences(5, 3)
    plain, scaled = TokenTypes(2, WIDTH, scaled=False), TokenTypes(2, WIDTH, scaled=True)
    for x, y, vector in zip(inputs, plain(inputs), plain.types, strict=True):
        assert torch.allclose(y - x, vector.expand_as(x), atol=1e-6)
    for x, y in zip(inputs, scaled(inputs), strict=True):
        assert 0 < float((y - x).detach().abs().max()) < 1e-5
    assert scaled.layer_scale is not None
    assert torch.equal(scaled.layer_scale, torch.full((WIDTH,), 1e-5))
    sum(y.sum() for y in scaled(inputs)).backward()
    assert scaled.layer_scale.grad is not None
    assert scaled.layer_scale.grad.abs().sum() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_a_bimodal_encoder_is_saved_with_each_weight_once(tied: bool, tmp_path: Path) -> None:
    encoder = strong(BimodalEncoder(WIDTH, HEADS, single_stream(2), tied=tied))
    assert sum(weight.numel() for weight in encoder.state_dict().values()) == BimodalEncoder.num_parameters(
        WIDTH, 2, tied=tied
    )
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    other = BimodalEncoder(WIDTH, HEADS, single_stream(2), tied=tied).eval()
    other.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    for one, two in zip(encoder(*sequences(5, 3))[:2], other(*sequences(5, 3))[:2], strict=True):
        assert torch.equal(one, two)
