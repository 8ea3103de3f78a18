"""The training loop that all recipes share: steps, log, loss curve, checkpoints, resuming.

A run is a folder. `checkpoint.safetensors` holds weights, optimiser state and the place in the data;
`log.jsonl` a line per logged step; `loss.png` the curve. A run that was killed and resumed computes the same
weights as one that was not: the data come from a stream that can be set to any place, and the random state is
set anew from the seed at every step.

A step may be made of several batches, which are divided among the processes of a run. How many processes
there are changes no more than the order in which gradients are added up.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from retrieval.errors import InvalidRequestError
from training.checkpoint import CHECKPOINT, LOG, Reached, draw_loss, load_checkpoint, save_checkpoint
from training.mixed_precision import MixedPrecision, require_precision
from training.optimizers import learning_rate_factor, make_optimizers
from training.processes import Processes
from training.run_config import RunConfig
from training.streams import Stream

_BATCH_SEED = 2**40  # apart from the seeds of all steps


class Recipe(Protocol):
    """What a recipe gives the loop."""

    @property
    def trained(self) -> nn.Module:
        """All of it is saved; its parameters that require a gradient are trained."""
        ...

    @property
    def stream(self) -> Stream:
        """Where the batches come from."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """The mean loss of one batch."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A recipe whose batches do not all count alike among those of one step."""

    def weight(self, batch: Any) -> float:
        """How much a batch counts: how many things `loss` is the mean of."""
        ...


class _Loss(nn.Module):
    """A recipe's loss as a module of what is trained, and of nothing else, for processes to share."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.trained = recipe.trained
        self._recipe = recipe

    def forward(self, batch: Any) -> Tensor:
        return self._recipe.loss(batch)


def require_runnable(config: RunConfig, *, resume: bool, processes: Processes) -> None:
    """Raise what `train` raises before it begins: a recipe may ask before it loads its models."""
    require_precision(config.precision, processes.device)
    if config.batches_per_step % processes.count:
        raise InvalidRequestError(
            f"{processes.count} processes cannot share the {config.batches_per_step} batches of a step evenly"
        )
    path = config.output / CHECKPOINT
    if path.exists() and not resume:
        raise InvalidRequestError(f"{path} exists: go on with --resume, or choose another output folder")
    if resume and not path.exists():
        raise InvalidRequestError(f"nothing to resume: {path} does not exist")


def train(recipe: Recipe, config: RunConfig, *, resume: bool, processes: Processes | None = None) -> None:
    """Run a recipe to its last step.

    Args:
        processes: those that train together, all of which call this; by default this one alone, on the CPU.

    Raises:
        InvalidRequestError: there is a checkpoint and `resume` is false, or none and it is true, or it was
            made with other settings; the device or the number of processes does not fit the recipe.
    """
    processes = processes or Processes()
    require_runnable(config, resume=resume, processes=processes)
    config.output.mkdir(parents=True, exist_ok=True)
    optimizers = make_optimizers(recipe.trained, config)
    precision = MixedPrecision(config.precision, processes.device)
    step, history = 0, list[dict[str, float]]()
    if resume:
        before = load_checkpoint(recipe.trained, optimizers, config)
        step, history = before.step, before.history
        recipe.stream.seek(before.place)
        precision.load(before.scale)
    if processes.is_main:  # steps after the checkpoint are computed, and logged, once more
        rows = "".join(json.dumps(row) + "\n" for row in history)
        (config.output / LOG).write_text(rows, encoding="utf-8")
    parameters = [p for p in recipe.trained.parameters() if p.requires_grad]
    model = processes.parallel(_Loss(recipe))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    recipe.trained.train()
    with Progress(*columns, console=Console(stderr=True), disable=not processes.is_main) as progress:
        loss_sum, since = torch.zeros((), device=processes.device), time.perf_counter()
        task = progress.add_task(config.output.name, total=config.steps, completed=step, loss=math.nan)
        while step < config.steps:
            factor = learning_rate_factor(step, config)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            loss_sum += _add_gradients(model, recipe, config, step, precision, processes)
            precision.step(optimizers, parameters, config.gradient_clip, step)
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                count = config.log_every if step % config.log_every == 0 else step % config.log_every
                row = {
                    "step": step,
                    "loss": round(float(processes.total(loss_sum)) / count, 5),
                    "seconds_per_step": round((time.perf_counter() - since) / count, 3),
                }
                history.append(row)
                if processes.is_main:
                    with (config.output / LOG).open("a", encoding="utf-8") as log:
                        log.write(json.dumps(row) + "\n")
                progress.update(task, loss=row["loss"])
                loss_sum, since = torch.zeros_like(loss_sum), time.perf_counter()
            progress.update(task, completed=step)
            if processes.is_main and (step % config.checkpoint_every == 0 or step == config.steps):
                done = Reached(step, history, recipe.stream.place(), precision.state())
                save_checkpoint(recipe.trained, optimizers, done, config)
                draw_loss(history, config.output)
    processes.wait()  # for what the first of them has written
    recipe.trained.eval()


def _add_gradients(
    model: nn.Module,
    recipe: Recipe,
    config: RunConfig,
    step: int,
    precision: MixedPrecision,
    processes: Processes,
) -> Tensor:
    """Compute this process's batches of a step. Returns its part of the step's loss."""
    seed = config.seed * 1_000_003 + step
    torch.manual_seed(seed)
    with precision.autocast():
        batches = [next(recipe.stream) for _ in range(config.batches_per_step)]
    shares = _shares(recipe, batches)
    mine = range(processes.index, len(batches), processes.count)
    part = torch.zeros((), device=processes.device)
    for number in mine:
        if len(batches) > 1:  # dropout must not depend on which process a batch came to
            torch.manual_seed(seed + number * _BATCH_SEED)
        waiting = processes.unsynchronised(model) if number != mine[-1] else nullcontext()
        with waiting:
            with precision.autocast():
                loss = model(batches[number]) * shares[number]
            precision.backward(loss * processes.count)  # gradients become their mean over the processes
        part += loss.detach()
    return part


def _shares(recipe: Recipe, batches: Sequence[Any]) -> list[float]:
    """How much each batch of a step counts; they sum to 1."""
    weights = [recipe.weight(batch) if isinstance(recipe, Weighing) else 1.0 for batch in batches]
    return [weight / sum(weights) for weight in weights]
