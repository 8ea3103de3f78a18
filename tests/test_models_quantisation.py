import torch

from models.quantisation import dequantise, quantise


def test_matrices_come_back_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([[1e-3], [1.0], [50.0], [0.0]])
    weights = {"a.weight": torch.randn(4, 64, generator=generator) * scales, "a.bias": torch.randn(4)}
    stored = quantise(weights)
    assert stored["a.weight"].dtype == torch.int8
    restored = dequantise(stored)
    assert restored.keys() == weights.keys()
    assert torch.equal(restored["a.bias"], weights["a.bias"])
    step = weights["a.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((restored["a.weight"] - weights["a.weight"]).abs() <= step * 0.5001 + 1e-9).all()


def test_a_parameter_called_scale_is_none_of_ours() -> None:
    weights = {"types.scale": torch.ones(3), "matrix": torch.randn(4, 3)}
    assert dequantise(quantise(weights)).keys() == weights.keys()
