"""What text encoders without a pooled output of their own have in common."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def run_encoder(model: Any, tokenizer: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Hidden states (N, T, D) of texts of at most `length` tokens, and their mask (N, T)."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    mask: Tensor = encoded["attention_mask"]
    hidden: Tensor = model(input_ids=encoded["input_ids"], attention_mask=mask).last_hidden_state
    return hidden, mask


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean (N, D) of hidden states (N, T, D) where the mask (N, T) is 1."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
