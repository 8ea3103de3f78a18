"""The training loop that all recipes share: schedule, log, loss curve, checkpoints, resuming.

A run is a folder. `checkpoint.safetensors` holds weights, optimiser state and the place in the data;
`log.jsonl` a line per logged step; `loss.png` the curve. A run that was killed and resumed computes the same
weights as one that was not: the data come from a stream that can be set to any place, and the random state is
set anew from the seed at every step. Training runs on the CPU.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from retrieval.errors import InvalidRequestError, PaelleraError
from retrieval.files import replacing
from retrieval.precision import fast_cpu_dtype
from training.files import save_tensors

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


class RunConfig(BaseModel):
    """What every recipe has in common."""

    model_config = ConfigDict(extra="forbid")

    output: Path  # folder of the run
    seed: int = 0
    steps: PositiveInt
    warmup_steps: int = Field(default=100, ge=0)
    learning_rate: PositiveFloat  # AdamW: embeddings, norms, biases
    matrix_learning_rate: PositiveFloat | None = None  # Muon: matrices; None trains them by AdamW too
    weight_decay: float = 0.01
    gradient_clip: PositiveFloat = 1.0
    # Autocast to bfloat16: by default where this CPU is fast in it.
    bf16: bool = Field(default_factory=lambda: fast_cpu_dtype() is torch.bfloat16)
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200

    @model_validator(mode="after")
    def _checkpoints_end_a_logged_row(self) -> Self:
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")
        return self


class Stream(Protocol):
    """Training batches without end, from a place that can be saved."""

    def __next__(self) -> Any: ...

    def place(self) -> dict[str, int]:
        """Where the next batch is, as plain numbers."""
        ...

    def seek(self, place: Mapping[str, int]) -> None:
        """Go to a place that `place` returned."""
        ...


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


class PooledStream:
    """A stream over pools of batches: pool number n depends on the seed and on n alone."""

    def __init__(self) -> None:
        self._pool = 0
        self._index = 0
        self._batches: list[Any] | None = None

    def pool(self, number: int) -> list[Any]:
        """The batches of a pool, at least one."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self.pool(self._pool)
        if self._index >= len(self._batches):
            self._pool, self._index = self._pool + 1, 0
            self._batches = self.pool(self._pool)
        self._index += 1
        return self._batches[self._index - 1]

    def place(self) -> dict[str, int]:
        return {"pool": self._pool, "index": self._index}

    def seek(self, place: Mapping[str, int]) -> None:
        self._pool, self._index, self._batches = place["pool"], place["index"], None


def make_optimizers(model: nn.Module, config: RunConfig) -> list[Optimizer]:
    """AdamW, and Muon for the matrices inside the layers if the config asks for it.

    Muon (Jordan et al. 2024) orthogonalises each update; it is meant for hidden matrices, not for embeddings.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices: list[nn.Parameter] = []
    if config.matrix_learning_rate is not None:
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in matrices}
    others = [p for p in trained if id(p) not in chosen]
    optimizers: list[Optimizer] = []
    if others:
        decayed = [p for p in others if p.ndim >= 2]
        kept = [p for p in others if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizers.append(AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98)))
    if matrices:
        assert config.matrix_learning_rate is not None
        optimizers.append(
            Muon(
                matrices,
                lr=config.matrix_learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, config: RunConfig) -> float:
    """Linear warm-up, then linear decay to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return max(0.0, (config.steps - step) / max(1, config.steps - config.warmup_steps))


def train(recipe: Recipe, config: RunConfig, *, resume: bool) -> None:
    """Run a recipe to its last step.

    Raises:
        InvalidRequestError: there is a checkpoint and `resume` is false, or none and it is true, or it was
            made with other settings.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    checkpoint = config.output / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise InvalidRequestError(
            f"{checkpoint} exists: go on with --resume, or choose another output folder"
        )
    if resume and not checkpoint.exists():
        raise InvalidRequestError(f"nothing to resume: {checkpoint} does not exist")
    optimizers = make_optimizers(recipe.trained, config)
    step, history = 0, list[dict[str, float]]()
    if resume:
        step, history = _load(checkpoint, recipe, optimizers, _settings(config))
    # Steps after the checkpoint are computed, and logged, once more.
    rows = "".join(json.dumps(row) + "\n" for row in history)
    (config.output / LOG).write_text(rows, encoding="utf-8")
    parameters = [p for p in recipe.trained.parameters() if p.requires_grad]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    recipe.trained.train()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        loss_sum, since = torch.zeros(()), time.perf_counter()
        task = progress.add_task(config.output.name, total=config.steps, completed=step, loss=math.nan)
        while step < config.steps:
            torch.manual_seed(config.seed * 1_000_003 + step)
            factor = learning_rate_factor(step, config)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bf16):
                loss = recipe.loss(next(recipe.stream))
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            if not torch.isfinite(norm):  # before it enters the weights, and they the only checkpoint
                raise PaelleraError(
                    f"the gradient of step {step} is not finite: resume with a smaller learning rate"
                )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            loss_sum += loss.detach()
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                count = config.log_every if step % config.log_every == 0 else step % config.log_every
                row = {
                    "step": step,
                    "loss": round(float(loss_sum) / count, 5),
                    "seconds_per_step": round((time.perf_counter() - since) / count, 3),
                }
                history.append(row)
                with (config.output / LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps(row) + "\n")
                progress.update(task, loss=row["loss"])
                loss_sum, since = torch.zeros(()), time.perf_counter()
            progress.update(task, completed=step)
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(checkpoint, recipe, optimizers, step, history, _settings(config))
                _draw_loss(history, config.output)
    recipe.trained.eval()


def _settings(config: RunConfig) -> dict[str, Any]:
    """What of a recipe decides the weights: not where the run lies, nor how often it reports."""
    return config.model_dump(mode="json", exclude={"output", "log_every", "checkpoint_every"})


def _save(
    path: Path,
    recipe: Recipe,
    optimizers: list[Optimizer],
    step: int,
    history: list[dict[str, float]],
    settings: Mapping[str, Any],
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in recipe.trained.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = torch.as_tensor(value)
    place = recipe.stream.place()
    meta = {"step": step, "history": history, "place": place, "settings": settings}
    save_tensors(tensors, path, {"run": json.dumps(meta)})


def _load(
    path: Path, recipe: Recipe, optimizers: list[Optimizer], settings: Mapping[str, Any]
) -> tuple[int, list[dict[str, float]]]:
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["run"])
        before = meta["settings"]
        changed = sorted(key for key in before | settings if before.get(key) != settings.get(key))
        if changed:
            raise InvalidRequestError(
                f"{path} was made with another {', '.join(changed)}: set that back, or choose another output"
                " folder"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    recipe.trained.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(f"optimizer.{number}."):
                _, _, index, name = key.split(".", maxsplit=3)
                state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    recipe.stream.seek(meta["place"])
    return meta["step"], meta["history"]


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


def _draw_loss(history: list[dict[str, float]], folder: Path) -> None:
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
