"""Attention rollout: from the weights of single layers to what a position has taken in through all of them.

Abnar and Zuidema, Quantifying Attention Flow in Transformers (ACL 2020, section 3): heads are averaged, the
residual connection counts as half of each layer's output, and layers are multiplied. Chefer et al., Generic
Attention-model Explainability (ICCV 2021, section 3.2) carry such relevance across from one modality to
another. Here image and text are one sequence in which visual tokens look at nothing but themselves, so the
same product gives what each text position has taken in of each of them; unlike theirs it needs no gradients.

Attention says where information came from, not that it decided the outcome.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def rollout(attention: Sequence[Tensor]) -> Tensor:
    """Self-attention of all layers, each (B, H, T, T), first layer first → (B, T, T), rows sum to 1."""
    batch, _, length, _ = attention[0].shape
    relevance = torch.eye(length, device=attention[0].device).expand(batch, -1, -1)
    for weights in attention:
        relevance = _through(weights.mean(dim=1), relevance)
    return relevance


def cross_rollout(
    self_attention: Sequence[Tensor],
    image_attention: Sequence[Tensor | None],
    prefix: Tensor | None = None,
) -> Tensor:
    """What each text position has taken in of each of N visual tokens.

    Args:
        self_attention: of each layer (B, H, T, T).
        image_attention: of each layer (B, H, T, N), which comes after its self-attention; None for a layer
            without one.
        prefix: (B, P, N), how much of each visual token is in the first P of the T positions to begin with.

    Returns:
        (B, T, N), rows sum to 1; equal weights where a position has taken in nothing of the image.

    Raises:
        ValueError: there is no image in any of it, so N is unknown.
    """
    shown = [weights for weights in image_attention if weights is not None]
    tokens = prefix.shape[2] if prefix is not None else shown[0].shape[3] if shown else 0
    if not tokens:
        raise ValueError("neither a layer nor a prefix looks at the image")
    batch, _, length, _ = self_attention[0].shape
    relevance = self_attention[0].new_zeros(batch, length, tokens)
    if prefix is not None:
        relevance[:, : prefix.shape[1]] = prefix
    for own, image in zip(self_attention, image_attention, strict=True):
        relevance = _through(own.mean(dim=1), relevance)
        if image is not None:
            relevance = 0.5 * relevance + 0.5 * image.mean(dim=1)
    return as_distributions(relevance)


def latent_rollout(attention: Sequence[Tensor]) -> list[Tensor]:
    """What S latents have taken in of N visual tokens after each layer.

    Args:
        attention: of each layer (B, H, S, N + S): latents look at visual tokens and at each other at once.

    Returns:
        After each layer (B, S, N), rows sum to 1.
    """
    batch, _, latents, width = attention[0].shape
    relevance = attention[0].new_zeros(batch, latents, width - latents)
    after = []
    for weights in attention:
        mean = weights.mean(dim=1)
        relevance = _through(mean[:, :, -latents:], relevance) + 0.5 * mean[:, :, :-latents]
        after.append(as_distributions(relevance))
    return after


def as_distributions(relevance: Tensor) -> Tensor:
    """Non-negative rows (..., N) scaled to sum to 1; a row of zeros becomes 1 / N throughout."""
    total = relevance.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, relevance / total.clamp_min(1e-30), 1 / relevance.shape[-1])


def _through(weights: Tensor, relevance: Tensor) -> Tensor:
    """Relevance (B, T, N) after a layer with a residual connection and weights (B, T, T)."""
    return 0.5 * relevance + 0.5 * (weights @ relevance)
