"""The states of the language model over captions without a prompt: how the matcher reads a text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.language.tokenizer import EOS, PAD
from models.language.xglm import XGLM

MAX_TOKENS = 64  # of a caption that are read
_LENGTH_STEP = 8  # texts are padded to a multiple: oneDNN compiles its kernels anew for every new shape


@torch.no_grad()
def caption_states(model: XGLM, captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Read C captions, token ids each.

    Returns:
        States (C, T, D) of start token, caption and end token, and where they are real: (C, T) bool.
    """
    rows = [[EOS, *caption[:MAX_TOKENS], EOS] for caption in captions]
    width = -(-max(map(len, rows)) // _LENGTH_STEP) * _LENGTH_STEP
    device = model.embed_tokens.weight.device
    ids = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    # Padding on the right comes after every real token, so the causal mask hides it.
    return model(ids), torch.arange(width, device=device) < lengths[:, None]
