"""Where in the photo each word of a caption comes from, as far as attention tells.

A caption that is finished is read once more, all of it at once, and every layer shows what it looked at. What
a word has taken in of each visual token is attention rollout (models/fusion/rollout.py) at the position that
predicted its first piece; the rest of its letters mostly follow from that and look at nothing in particular.

Most of that is the same for all words: attention gathers in a few places, often at the edge, where there is
nothing to be seen. What is shown is therefore by what factor a word exceeds the mean over all positions of
prompt and caption, less 1, and 0 where it does not; then scaled to a sum of 1. So a grid compares places for
one word, and says nothing about how much the word depends on the photo at all.

Measured on the words for the thing in the photo, in up to ten languages, against a box around the thing: cat,
coffee and rocket, which the method was chosen on, then flower and motorcycle. The boxes are 0.52, 0.30, 0.26;
0.35, 0.52 of the photo and hold 0.44, 0.27, 0.18; 0.22, 0.50 of the rollout itself, which is no better than
chance, and 0.96, 0.62, 0.62; 0.68, 0.69 of these grids.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.captions import WordAttention
from models.fusion.bridge import Bridge
from models.fusion.rollout import as_distributions, cross_rollout
from models.language.decoding import LanguageModel
from models.language.tokenizer import PAD
from models.language.vocabulary import Vocabulary
from models.language.words import group_words
from models.vision.features import Region, VisionFeatures
from retrieval.errors import InvalidRequestError

_ROWS_AT_ONCE = 4  # weights of all layers and heads are in memory together: some 10 MB a caption

_LEAST_EXCESS = 0.01  # a word that exceeds the mean nowhere by more has equal weights: scaled up, it is noise


def grid_of(tokens: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of N visual tokens; a vision encoder that names no grid is taken to have a square one.

    Raises:
        InvalidRequestError: the tokens do not fill a grid.
    """
    side = math.isqrt(tokens)
    rows, columns = grid or (side, side)
    if rows * columns != tokens:
        raise InvalidRequestError(
            f"the {tokens} visual tokens of this model are no grid over the photo: ask without explain"
        )
    return rows, columns


@dataclass(frozen=True)
class _Place:
    """Where the visual tokens of a photo are."""

    cells: slice  # of the tokens, those that stand for a place
    grid: tuple[int, int]
    region: Region | None

    @classmethod
    def of(cls, features: VisionFeatures, photo: int) -> "_Place":
        count = features.tokens.shape[1] if features.mask is None else int(features.mask[photo].sum())
        cells = slice(features.summaries, count)
        grid = grid_of(count - features.summaries, features.grids[photo] if features.grids else None)
        return cls(cells, grid, None if features.regions is None else features.regions[photo])

    def lay_out(self, excess: Tensor) -> Tensor:
        """Weights over the whole photo (R, C), which sum to 1, of a word's factors over the mean (N,)."""
        word = _of_word(excess[self.cells].cpu()).view(self.grid)
        return word if self.region is None else over_the_photo(word, self.region)


def over_the_photo(weights: Tensor, region: Region) -> Tensor:
    """A grid (R, C) that covers a region as one of about as large cells that covers the whole photo.

    Cells share out their weight by area; what lies beyond the photo's edge is left out.
    """
    left, top, right, bottom = region
    down, across = _shares(weights.shape[0], top, bottom), _shares(weights.shape[1], left, right)
    return as_distributions((down @ weights @ across.t()).flatten()).view(len(down), len(across))


def _shares(cells: int, start: float, end: float) -> Tensor:
    """How much of each of `cells` from start to end lies in each cell of the same line from 0 to 1."""
    size = (end - start) / cells
    count = max(1, round(1 / size))
    inside = start + size * torch.arange(cells + 1)  # edges
    whole = torch.arange(count + 1) / count
    overlap = torch.minimum(whole[1:, None], inside[1:]) - torch.maximum(whole[:-1, None], inside[:-1])
    return overlap.clamp_min(0) / size


@torch.inference_mode()
def explain(
    model: LanguageModel,
    bridge: Bridge[Any],
    tokenizer: Vocabulary,
    features: VisionFeatures,
    counts: Sequence[int],
    prompts: Sequence[Sequence[int]],
    captions: Sequence[Sequence[int]],
) -> list[tuple[WordAttention, ...]]:
    """The words of each caption with their grids.

    Args:
        features: of B photos.
        counts: of each photo, how many of the captions are its own.
        prompts, captions: token ids, a caption as it was generated behind its prompt; those of the first
            photo first.

    Raises:
        InvalidRequestError: the visual tokens are no grid.
    """
    places = [_Place.of(features, photo) for photo in range(len(counts))]
    photos = [photo for photo, count in enumerate(counts) for _ in range(count)]
    explained = []
    for start in range(0, len(prompts), _ROWS_AT_ONCE):
        chunk = slice(start, start + _ROWS_AT_ONCE)
        own = torch.tensor(photos[chunk], device=features.tokens.device)
        mask = None if features.mask is None else features.mask[own]
        read = _read_again(model, bridge, features.tokens[own], mask, prompts[chunk], captions[chunk])
        for photo, ids, excess in zip(photos[chunk], captions[chunk], read, strict=True):
            words = []
            for indices in group_words([tokenizer.piece(token) for token in ids]):
                word = places[photo].lay_out(excess[indices[0]])
                text = tokenizer.decode([ids[i] for i in indices])
                if text:
                    words.append(WordAttention(text, tuple(tuple(row) for row in word.tolist())))
            explained.append(tuple(words))
    return explained


def _read_again(
    model: LanguageModel,
    bridge: Bridge[Any],
    memory: Tensor,
    mask: Tensor | None,
    prompts: Sequence[Sequence[int]],
    captions: Sequence[Sequence[int]],
) -> list[Tensor]:
    """For each caption of C tokens (C, N): what predicting it took in of each visual token, over the mean."""
    sequences = [[*prompt, *caption] for prompt, caption in zip(prompts, captions, strict=True)]
    width = max(map(len, sequences))
    # Padding on the right: the causal mask keeps it out of everything before it.
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in sequences], device=memory.device)
    state, origins = bridge.prepare_with_weights(memory.to(model.dtype), mask)
    layers = model.watch(ids, bridge=bridge, bridge_state=state)
    image = [  # the mean of the heads first: all of them through the origins would take longer than the model
        None
        if layer.image is None
        else layer.image.mean(dim=1, keepdim=True) @ origins.layers[index][:, None]
        for index, layer in enumerate(layers)
    ]
    relevance = cross_rollout([layer.own for layer in layers], image, origins.prefix)[:, -width:]
    read = []
    for b, prompt in enumerate(prompts):
        end = len(sequences[b])
        shared = relevance[b, :end].mean(dim=0)
        read.append(relevance[b, len(prompt) - 1 : end - 1] / shared.clamp_min(1e-30))
    return read


def _of_word(excess: Tensor) -> Tensor:
    """Weights (N,) that sum to 1, of factors over the mean (N,)."""
    over = (excess - 1).clamp_min(0)
    return as_distributions(over if bool(over.max() > _LEAST_EXCESS) else torch.zeros_like(over))
