"""Training sequences: one prompt, several captions that may follow it.

A prompt is several times longer than a caption, so the captions of a photo share one copy of it: the row is
`prompt, caption 1, caption 2, …` and the attention mask is a tree in which a caption sees the prompt and
itself. Each caption numbers its positions on from the prompt, so every token gets exactly the computation it
would get alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.language.tokenizer import EOS, PAD

IGNORE = -100
_PROMPT_SEGMENT = 0
_PADDING_SEGMENT = -1
_LENGTH_STEP = 16  # rows are padded to a multiple: oneDNN compiles its kernels anew for every new shape


@dataclass(frozen=True)
class Example:
    """One row: where it comes from and what is to be learnt."""

    image_id: str
    prompt: Sequence[int]
    captions: Sequence[Sequence[int]]
    learn_prompt: bool = False  # also learn the prompt's own tokens, as plain language modelling

    @property
    def length(self) -> int:
        return len(self.prompt) - 1 + sum(len(caption) + 1 for caption in self.captions)


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length T."""

    image_ids: list[str]
    input_ids: Tensor  # (B, T) int64
    positions: Tensor  # (B, T) int64
    mask: Tensor  # (B, 1, T, T) bool
    labels: Tensor  # (B, T) int64, IGNORE where nothing is learnt

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        moved = (part.to(device) for part in (self.input_ids, self.positions, self.mask, self.labels))
        return Batch(self.image_ids, *moved)

    @property
    def num_labels(self) -> int:
        return int((self.labels != IGNORE).sum())


def tree_mask(segments: Tensor) -> Tensor:
    """Who sees whom, (B, 1, T, T) bool, from each token's segment (B, T): 0 the prompt, 1… the captions."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    queries, keys = segments[:, :, None], segments[:, None, :]
    return (causal & ((keys == _PROMPT_SEGMENT) | (keys == queries)))[:, None]


def padded_length(examples: Sequence[Example]) -> int:
    """The length that all of these rows are padded to."""
    return -(-max(example.length for example in examples) // _LENGTH_STEP) * _LENGTH_STEP


def collate(examples: Sequence[Example], *, end: int = EOS, padding_token: int = PAD) -> Batch:
    """Pad rows into a batch.

    Args:
        end: the token behind a caption, which is learnt with it.
    """
    length = padded_length(examples)
    ids, positions, segments, labels = [], [], [], []
    for example in examples:
        # The prompt's last token predicts the first word of *every* caption, so each caption starts with a
        # copy of it.
        shared, last = list(example.prompt[:-1]), example.prompt[-1]
        row_ids, row_positions = shared.copy(), list(range(len(shared)))
        row_segments = [_PROMPT_SEGMENT] * len(shared)
        row_labels = list(example.prompt[1:]) if example.learn_prompt else [IGNORE] * len(shared)
        for number, caption in enumerate(example.captions, start=1):
            row_ids += [last, *caption]
            row_labels += [*caption, end]
            row_positions += range(len(shared), len(shared) + len(caption) + 1)
            row_segments += [number] * (len(caption) + 1)
        padding = length - len(row_ids)
        ids.append(row_ids + [padding_token] * padding)
        labels.append(row_labels + [IGNORE] * padding)
        positions.append(row_positions + [0] * padding)
        segments.append(row_segments + [_PADDING_SEGMENT] * padding)
    return Batch(
        [example.image_id for example in examples],
        torch.tensor(ids),
        torch.tensor(positions),
        tree_mask(torch.tensor(segments)),
        torch.tensor(labels),
    )


def pack_by_length(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Cut rows into batches of similar length, each of at most `tokens` padded tokens (or of one row)."""
    # Longest first: the first row of a batch is the length that all of it is padded to.
    ordered = sorted(examples, key=lambda item: item.length, reverse=True)
    batches: list[list[Example]] = []
    while ordered:
        rows = max(1, tokens // padded_length(ordered[:1]))
        batches.append(ordered[:rows])
        ordered = ordered[rows:]
    return batches
