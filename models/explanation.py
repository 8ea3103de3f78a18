"""Where in the photo each word of a caption comes from, as far as attention tells.

A caption that is finished is read once more, all of it at once, and every layer shows what it looked at. What
a word has taken in of each visual token is attention rollout (models/fusion/rollout.py) at the positions that
predicted its pieces, each counted by how open the choice was there: its surprisal, -log p. The last letters
of a word follow from the first and look at nothing in particular.

Most of that is the same for all words: attention gathers in a few places, often at the edge, where there is
nothing to be seen. What is shown is therefore by what factor a word exceeds the mean over all positions of
prompt and caption, less 1, and 0 where it does not; then scaled to a sum of 1. So a grid compares places for
one word, and says nothing about how much the word depends on the photo at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.fusion.bridge import Bridge
from models.fusion.rollout import as_distributions, cross_rollout
from models.language.tokenizer import PAD, Tokenizer
from models.language.words import SPACE, group_words, has_letters
from models.language.xglm import XGLM, LayerAttention
from models.vision.features import VisionFeatures
from retrieval.errors import InvalidRequestError

_ROWS_AT_ONCE = 8  # weights of all layers and heads are in memory together: some 10 MB a caption
_LEAST_SURPRISAL = 1e-3  # nats; so that a word of which the model was sure has positions that count, too

_LEAST_EXCESS = 0.01  # a word that exceeds the mean nowhere by more has equal weights: scaled up, it is noise


@dataclass(frozen=True)
class WordAttention:
    """A word as the caption has it, and its weights: rows from the top of the photo, which all sum to 1."""

    text: str
    weights: tuple[tuple[float, ...], ...]


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


@torch.inference_mode()
def explain(
    model: XGLM,
    bridge: Bridge[Any],
    tokenizer: Tokenizer,
    features: VisionFeatures,
    prompts: Sequence[Sequence[int]],
    captions: Sequence[Sequence[int]],
) -> list[tuple[WordAttention, ...]]:
    """The words of each caption with their grids.

    Args:
        features: of B photos.
        prompts, captions: token ids, a caption as it was generated behind its prompt; equally many for each
            photo, those of the first photo first.

    Raises:
        InvalidRequestError: the visual tokens are no grid.
    """
    rows, columns = grid_of(features.tokens.shape[1], features.grid)
    memory = features.tokens.repeat_interleave(len(prompts) // len(features.tokens), dim=0)
    explained = []
    for start in range(0, len(prompts), _ROWS_AT_ONCE):
        chunk = slice(start, start + _ROWS_AT_ONCE)
        for ids, (excess, surprisal) in zip(
            captions[chunk],
            _read_again(model, bridge, memory[chunk], prompts[chunk], captions[chunk]),
            strict=True,
        ):
            pieces = [tokenizer.piece(token) for token in ids]
            words = []
            for indices in group_words(pieces):
                word = _of_word(excess, surprisal, indices, pieces).view(rows, columns)
                text = tokenizer.decode([ids[i] for i in indices])
                words.append(WordAttention(text, tuple(tuple(row) for row in word.tolist())))
            explained.append(tuple(words))
    return explained


def _read_again(
    model: XGLM,
    bridge: Bridge[Any],
    memory: Tensor,
    prompts: Sequence[Sequence[int]],
    captions: Sequence[Sequence[int]],
) -> list[tuple[Tensor, Tensor]]:
    """For each caption of C tokens: relevance over its mean (C, N), and surprisal (C,) in nats."""
    sequences = [[*prompt, *caption] for prompt, caption in zip(prompts, captions, strict=True)]
    width = max(map(len, sequences))
    # Padding on the right: the causal mask keeps it out of everything before it.
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in sequences], device=memory.device)
    state, origins = bridge.prepare_with_weights(memory.to(model.embed_tokens.weight.dtype))
    layers: list[LayerAttention] = []
    hidden = model(ids, bridge=bridge, bridge_state=state, collected=layers)
    image = [
        None if layer.image is None else layer.image @ origins.layers[index][:, None]
        for index, layer in enumerate(layers)
    ]
    relevance = cross_rollout([layer.own for layer in layers], image, origins.prefix)[:, -width:]
    read = []
    for b, prompt in enumerate(prompts):
        end = len(sequences[b])
        predicting = slice(len(prompt) - 1, end - 1)
        shared = relevance[b, :end].mean(dim=0)
        excess = relevance[b, predicting] / shared.clamp_min(1e-30)
        scores = model.logits(hidden[b, predicting]).float()
        chosen = scores.gather(1, ids[b, len(prompt) : end, None])[:, 0]
        read.append((excess, scores.logsumexp(dim=-1) - chosen))
    return read


def _of_word(excess: Tensor, surprisal: Tensor, indices: Sequence[int], pieces: Sequence[str]) -> Tensor:
    """The weights (N,) of the word that consists of the pieces at `indices`."""
    # Not the punctuation behind it; but a lone space counts: with it a rare word begins.
    counted = [i for i in indices if has_letters(pieces[i]) or pieces[i] == SPACE] or list(indices)
    shares = surprisal[counted].clamp_min(_LEAST_SURPRISAL)
    mean = (shares / shares.sum()) @ excess[counted]
    over = (mean - 1).clamp_min(0)
    return as_distributions(over if bool(over.max() > _LEAST_EXCESS) else torch.zeros_like(over))
