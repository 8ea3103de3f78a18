"""Several processes on this machine's CPU, started without a launcher: for trying a recipe out."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed
from torch.multiprocessing.spawn import ProcessException, start_processes

from retrieval.errors import PaelleraError
from training.processes import leave_processes


def run_processes(count: int, work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` in `count` new processes, in each of which `launched_processes` knows the others.

    Args:
        work: a function of a module, so that a new process finds it.

    Raises:
        PaelleraError: one of them failed; the others were ended.
    """
    with TemporaryDirectory(prefix="paellera-") as folder:
        try:
            start_processes(  # type: ignore[no-untyped-call]
                _run, (count, Path(folder, "store"), work, args), nprocs=count, start_method="spawn"
            )
        except ProcessException as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            raise PaelleraError(f"process {error.error_index} of {count} failed: {last}") from error


def _run(index: int, count: int, store: Path, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(
        {
            "RANK": str(index),
            "LOCAL_RANK": str(index),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
        },
        ACCELERATE_USE_CPU="true",
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A file to meet at: two runs cannot be after the same port.
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=count)
    work(*args)
    leave_processes()
