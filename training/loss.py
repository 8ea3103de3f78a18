"""Cross-entropy straight from hidden states, without ever holding all logits.

With a vocabulary of thousands the logits of a batch are hundreds of megabytes, and reading and writing them
costs more time than computing them. Here they live one chunk at a time: the gradient is formed in the forward
pass, while the chunk is still in the processor's cache.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024
_ROWS_STEP = 128  # chunks are padded to a multiple: oneDNN compiles its kernels anew for every new shape


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        head = weight.to(dtype)
        needs_weight = ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        with torch.autocast("cpu", enabled=False):
            for start in range(0, len(hidden), _CHUNK):
                rows = slice(start, start + _CHUNK)
                count = len(hidden[rows])
                chunk = F.pad(hidden[rows].to(dtype), (0, 0, 0, -count % _ROWS_STEP))
                probabilities = (chunk @ head.t()).float().log_softmax(dim=-1)
                loss -= probabilities[:count].gather(1, labels[rows, None]).sum()
                probabilities.exp_()
                probabilities[:count].scatter_add_(
                    1, labels[rows, None], probabilities.new_full((count, 1), -1.0)
                )
                probabilities[count:] = 0
                gradient = probabilities.to(dtype)
                grad_hidden[rows] = (gradient @ head)[:count].to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += (gradient.t() @ chunk).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_hidden * scale, None if grad_weight is None else grad_weight * scale, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum over N of the cross-entropy of `softmax(hidden @ weight^T)` against `labels`.

    Args:
        hidden: (N, D).
        weight: (V, D), the language model's head.
        labels: (N,) int64, every one a token to be learnt.

    Returns:
        A scalar in fp32. Its gradient is exact; under autocast the products are in autocast's dtype.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, labels)  # type: ignore[no-untyped-call]
    return loss
