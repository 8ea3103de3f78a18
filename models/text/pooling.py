"""What text encoders without a pooled output of their own have in common, and where all of them compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def text_device() -> torch.device:
    """The GPU, if torch reports one: captions come by the hundred thousand."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_encoder(model: Any, tokenizer: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Hidden states (N, T, D) of texts of at most `length` tokens, and their mask (N, T)."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    encoded = encoded.to(model.device)
    mask: Tensor = encoded["attention_mask"]
    hidden: Tensor = model(input_ids=encoded["input_ids"], attention_mask=mask).last_hidden_state
    return hidden, mask


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean (N, D) of hidden states (N, T, D) where the mask (N, T) is 1."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
