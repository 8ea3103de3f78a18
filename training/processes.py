"""The processes that train one model together: who this one is, what it computes on, how they agree.

Several are started by `accelerate launch`; Accelerate then says how many there are and which device is whose.
They talk through NCCL on GPUs and through Gloo on CPUs.
"""

import importlib
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retrieval.errors import InvalidRequestError

# The others wait while the first fetches models and reads captions; NCCL's own patience is ten minutes.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Processes:
    """This process among `count`; by default it is alone and computes on the CPU."""

    index: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.index == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module so that gradients of its parameters become their mean over all processes."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module)

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within it gradients of a `parallel` module are only added up here, to be averaged later."""
        if isinstance(module, DistributedDataParallel):
            waiting: AbstractContextManager[None] = module.no_sync()
            return waiting
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.count > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


def launched_processes() -> Processes:
    """This process as Accelerate knows it: one of several if a launcher started it, on its own GPU if any.

    Raises:
        InvalidRequestError: Accelerate is not installed.
    """
    try:
        accelerate: Any = importlib.import_module("accelerate")
    except ImportError as error:
        raise InvalidRequestError(
            "training at size needs accelerate: pip install 'paellera[train]'"
        ) from error
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = accelerate.PartialState(cpu=on_cpu, timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, torch.device(state.device))


def leave_processes() -> None:
    """Part from the others; nothing is to be computed together after this."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
