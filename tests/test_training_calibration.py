"""Logits become probabilities."""

import pytest
import torch

from models.matcher import Matcher, MatcherConfig
from training.calibration import Calibration, fit_logistic


def test_a_known_scale_and_bias_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(40_000, generator=generator) + 3
    fits = torch.rand(40_000, generator=generator) < (0.5 * logits - 1.5).sigmoid()
    scale, bias = fit_logistic(logits[fits], logits[~fits])
    assert scale == pytest.approx(0.5, abs=0.02)
    assert bias == pytest.approx(-1.5, abs=0.05)


def test_logits_that_tell_nothing_become_even_odds() -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    scale, bias = fit_logistic(logits, logits.clone())
    assert abs(scale) < 0.02
    assert abs(bias) < 0.02


def test_a_calibrated_matcher_gives_calibrated_logits() -> None:
    torch.manual_seed(0)
    matcher = Matcher(MatcherConfig(d_memory=8, d_text=6, places=4, d_model=16)).eval()
    images, states = torch.randn(3, 4, 8), torch.randn(3, 5, 6)
    mask = torch.ones(3, 5, dtype=torch.bool)

    @torch.no_grad()
    def logits() -> torch.Tensor:
        scored: torch.Tensor = matcher(matcher.encode_images(images), matcher.encode_texts(states, mask))
        return scored

    before = logits()
    Calibration(scale=0.3, bias=-2.0, match_weight=0.01, photos=3).apply(matcher)
    torch.testing.assert_close(logits(), 0.3 * before - 2.0)
