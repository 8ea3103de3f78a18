"""Where a matcher's towers begin: at the embedder's space, by least squares.

A fusion encoder that begins from nothing finds no way to compare the two sides on a few thousand photos. The
penalty on the image side is heavy: the embedder knows the training photos by heart, and a start that does too
leaves nothing to learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.matcher import Matcher

# Token ids of C captions → states (C, T, D), and where they are real (C, T) bool.
ReadCaptions = Callable[[Sequence[Sequence[int]]], tuple[Tensor, Tensor]]

_RIDGE_IMAGE, _RIDGE_TEXT = 3.0, 0.01  # of the mean variance: photos are few, captions many
_AT_ONCE = 1024  # captions read together


@dataclass(frozen=True)
class TowerStart:
    """Least squares from both inputs into the embedder's space, its main directions first."""

    vision_mean: Tensor  # (d_memory,)
    vision_scale: Tensor  # ()
    vision_weight: Tensor  # (E, d_memory)
    text_mean: Tensor  # (d_text,)
    text_scale: Tensor  # ()
    text_weight: Tensor  # (E, d_text)

    @torch.no_grad()
    def apply(self, matcher: Matcher) -> None:
        """Let a fresh matcher begin here."""
        matcher.vision_mean.copy_(self.vision_mean)
        matcher.vision_scale.copy_(self.vision_scale)
        matcher.text_mean.copy_(self.text_mean)
        matcher.text_scale.copy_(self.text_scale)
        width = min(matcher.config.d_model, len(self.vision_weight))
        matcher.vision_proj.weight[:width] = self.vision_weight[:width]
        matcher.text_proj.weight[:width] = self.text_weight[:width]


@torch.no_grad()
def tower_start(
    pooled: Tensor, tokens: Tensor, photo_vectors: Tensor, states: Tensor, text_vectors: Tensor
) -> TowerStart:
    """Where towers begin.

    Args:
        pooled: (P, d_memory) mean visual token of each training photo.
        tokens: (p, N, d_memory) visual tokens of some of them, for their scale.
        photo_vectors: (P, E) mean of the embedder's vectors of each photo's captions.
        states: (C, d_text) mean text encoder state of some captions.
        text_vectors: (C, E) the embedder's vectors of these captions.
    """
    centre = text_vectors.mean(dim=0)
    texts = F.normalize(text_vectors - centre, dim=1)
    photos = F.normalize(photo_vectors - centre, dim=1)
    directions = torch.linalg.eigh(texts.t() @ texts).eigenvectors.flip(1)  # (E, E), largest first
    vision_mean, vision_scale = pooled.mean(dim=0), tokens.float().std()
    text_mean, text_scale = states.mean(dim=0), states.std()
    vision_weight = _ridge((pooled - vision_mean) / vision_scale, photos @ directions, _RIDGE_IMAGE)
    text_weight = _ridge((states - text_mean) / text_scale, texts @ directions, _RIDGE_TEXT)
    return TowerStart(vision_mean, vision_scale, vision_weight, text_mean, text_scale, text_weight)


def mean_vectors(vectors: Tensor, owner: Tensor) -> Tensor:
    """Mean (P, E) of the vectors (C, E) of each of P owners; `owner` (C,) names all of 0…P-1."""
    counts = torch.bincount(owner)
    sums = vectors.new_zeros(len(counts), vectors.shape[1]).index_add_(0, owner, vectors)
    return sums / counts[:, None]


def _ridge(inputs: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Weight (E, D) of the penalised least squares, scaled so that outputs have about unit variance."""
    gram = inputs.t() @ inputs
    gram = gram + penalty * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, inputs.t() @ targets)
    scaled: Tensor = weight / (inputs @ weight).std()
    return scaled.t().contiguous()


@torch.no_grad()
def mean_states(read: ReadCaptions, captions: Sequence[Sequence[int]]) -> Tensor:
    """Mean state (C, D) of each caption."""
    means = []
    for start in range(0, len(captions), _AT_ONCE):
        states, mask = read(captions[start : start + _AT_ONCE])
        means.append((states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))
    return torch.cat(means)
