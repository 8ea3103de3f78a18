"""The files of a run: its checkpoint, its log and the curve of its loss."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from retrieval.errors import InvalidRequestError
from retrieval.files import replacing
from training.files import save_tensors
from training.run_config import RunConfig

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Reached:
    """How far a run has come."""

    step: int
    history: list[dict[str, float]]  # a row for each line of the log
    place: Mapping[str, int]  # of the stream
    scale: Mapping[str, float]  # of the loss, with fp16


def save_checkpoint(
    trained: nn.Module, optimizers: Sequence[Optimizer], reached: Reached, config: RunConfig
) -> None:
    """Write weights, optimiser state and the place in the data, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = torch.as_tensor(value)
    meta = {**vars(reached), "settings": _settings(config)}
    save_tensors(tensors, config.output / CHECKPOINT, {"run": json.dumps(meta)})


def load_checkpoint(trained: nn.Module, optimizers: Sequence[Optimizer], config: RunConfig) -> Reached:
    """Set weights and optimisers to what the run's checkpoint holds.

    Raises:
        InvalidRequestError: it was made with other settings.
    """
    path = config.output / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["run"])
        before, settings = meta.pop("settings"), _settings(config)
        changed = sorted(key for key in before | settings if before.get(key) != settings.get(key))
        if changed:
            raise InvalidRequestError(
                f"{path} was made with another {', '.join(changed)}: set that back, or choose another output"
                " folder"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    trained.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(f"optimizer.{number}."):
                _, _, index, name = key.split(".", maxsplit=3)
                state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return Reached(**meta)


def _settings(config: RunConfig) -> dict[str, Any]:
    """What of a recipe decides the weights: not where the run lies, nor how often it reports."""
    return config.model_dump(mode="json", exclude={"output", "log_every", "checkpoint_every"})


def logged_losses(config: RunConfig) -> list[float]:
    """The losses that a run has logged, each the mean of `log_every` steps."""
    lines = (config.output / LOG).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def load_trained(config: RunConfig) -> dict[str, Tensor]:
    """The trained weights of a finished run, by parameter name.

    Raises:
        InvalidRequestError: the run has no checkpoint, or has not reached its last step.
    """
    checkpoint = config.output / CHECKPOINT
    if not checkpoint.is_file():
        raise InvalidRequestError(f"{config.output} has no {CHECKPOINT}: train it first")
    with safe_open(checkpoint, framework="pt") as file:
        step = json.loads(file.metadata()["run"])["step"]
        if step < config.steps:
            raise InvalidRequestError(
                f"{config.output} is at step {step} of {config.steps}: finish it with --resume"
            )
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 - not a mapping
        return {name.removeprefix("model."): file.get_tensor(name) for name in names}


def draw_loss(history: Sequence[Mapping[str, float]], folder: Path) -> None:
    """Draw the curve of the loss into the run's folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([row["step"] for row in history], [row["loss"] for row in history])
    axes.set(xlabel="step", ylabel="training loss", title=folder.name)
    axes.grid(alpha=0.3)
    with replacing(folder / "loss.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)
