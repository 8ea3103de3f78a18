"""Training in half precision: products in bf16 or fp16, weights and their updates in fp32.

fp16 has few exponents, so that small gradients would vanish: the loss is scaled up before the backward pass,
and a step whose gradients then overflow is left out and the scale halved (Micikevicius et al., ICLR 2018).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from retrieval.errors import InvalidRequestError, PaelleraError
from training.run_config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def require_precision(precision: Precision, device: torch.device) -> None:
    """Raise InvalidRequestError for a precision that the device cannot train in."""
    if precision == "fp16" and device.type == "cpu":
        raise InvalidRequestError('fp16 is for GPUs: on a CPU set precision = "bf16" or "fp32"')


class MixedPrecision:
    """Autocast and, with fp16, the scale of the loss."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._device, self._dtype = device, DTYPES[precision]
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        """Within it products are computed in the precision."""
        enabled = self._dtype is not torch.float32
        dtype = self._dtype if enabled else torch.bfloat16  # autocast wants a half precision even when off
        return torch.autocast(self._device.type, dtype=dtype, enabled=enabled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled, to those that are there."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(
        self, optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], clip: float, number: int
    ) -> None:
        """Take the step `number` with the gradients cut to the norm `clip`, and forget them.

        Raises:
            PaelleraError: a gradient is not finite; with fp16, at no scale.
        """
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, clip)
        finite = bool(torch.isfinite(norm))
        # Before it enters the weights, and they the only checkpoint.
        if not finite and (not self._scaler.is_enabled() or self._scaler.get_scale() < 1):
            raise PaelleraError(
                f"the gradient of step {number} is not finite: resume with a smaller learning rate"
            )
        for optimizer in optimizers:
            self._scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """What a resumed run has to begin with."""
        state = self._scaler.state_dict()
        return {name: state[name] for name in ("scale", "_growth_tracker") if name in state}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` returned."""
        if state:
            self._scaler.load_state_dict({**self._scaler.state_dict(), **state})
