"""Captions word by word: the states of multilingual-e5-small's first layers.

A sentence vector blurs what a caption says; its tokens' states keep the words apart, in context and close to
their translations. The middle layers do so better than the last, which are on their way to the sentence.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.embedder import TEXT_PREFIX

MAX_TOKENS = 64  # of a caption that are read, its prefix among them
_BATCH_TOKENS = 4096


class CaptionReader:
    """Reads captions with the first `layers` of the encoder's layers."""

    def __init__(self, encoder: E5Encoder, layers: int) -> None:
        if not 0 <= layers <= encoder.config.num_layers:
            raise ValueError(f"the text encoder has {encoder.config.num_layers} layers, not {layers}")
        self._encoder = encoder
        self._layers = layers

    @property
    def width(self) -> int:
        return self._encoder.config.hidden_size

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text behind the encoder's prefix."""
        return self._encoder.tokenizer.encode([TEXT_PREFIX + text for text in texts])

    @torch.no_grad()
    def __call__(self, token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """States of C captions.

        Returns:
            (C, T, width) float32 of start token, caption and end token, zeros behind them, and where they are
            real: (C, T) bool.
        """
        ids = [list(caption[:MAX_TOKENS]) for caption in token_ids]
        lengths = np.array([len(caption) + 2 for caption in ids])
        device = self._encoder.positions.device
        states = torch.zeros(len(ids), int(lengths.max()), self.width, device=device)
        waiting = np.argsort(lengths, kind="stable").tolist()
        while waiting:
            taken, tokens = list[int](), 0
            while waiting and (not taken or tokens + lengths[waiting[-1]] <= _BATCH_TOKENS):
                taken.append(waiting.pop())
                tokens += int(lengths[taken[-1]])
            flat = self._encoder.token_states([ids[row] for row in taken], self._layers)
            for row, own in zip(taken, torch.split(flat, lengths[taken].tolist()), strict=True):
                states[row, : len(own)] = own
        mask = torch.arange(states.shape[1], device=device) < torch.from_numpy(lengths).to(device)[:, None]
        return states, mask
