"""Several processes, or several batches a step, compute what one process computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retrieval.errors import InvalidRequestError, PaelleraError
from training.at_size.cpu_processes import run_processes
from training.checkpoint import load_trained, logged_losses
from training.loop import train
from training.mixed_precision import MixedPrecision
from training.processes import Processes, launched_processes
from training.run_config import RunConfig
from training.streams import PooledStream


class Rows(PooledStream):
    """Batches of different sizes."""

    def pool(self, number: int) -> list[Any]:
        generator = torch.Generator().manual_seed(number)
        return [torch.randn(size, 6, generator=generator) for size in (2, 7, 3, 5)]


class Fit:
    """Learns a fixed map of rows, with dropout; counts the rows of a batch."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.trained = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6))
        self.stream = Rows()

    def loss(self, batch: Tensor) -> Tensor:
        loss: Tensor = (self.trained(batch) - batch.flip(1)).square().mean()
        return loss

    def weight(self, batch: Tensor) -> float:
        return len(batch)


def config(output: Path, **changes: object) -> RunConfig:
    settings = {
        "output": output,
        "steps": 12,
        "warmup_steps": 2,
        "learning_rate": 0.01,
        "matrix_learning_rate": 0.01,
        "batches_per_step": 4,
        "log_every": 4,
        "checkpoint_every": 4,
        "precision": "fp32",
    }
    return RunConfig.model_validate({**settings, **changes})


def train_and_resume(fresh: RunConfig, killed: RunConfig) -> None:
    processes = launched_processes()
    assert processes.count == 2
    train(Fit(), fresh, resume=False, processes=processes)
    train(Fit(), killed, resume=True, processes=processes)


def fail(message: str) -> None:
    raise InvalidRequestError(message)


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    class Dying(Fit):
        seen = 0

        def loss(self, batch: Tensor) -> Tensor:
            self.seen += 1
            if self.seen == 22:  # in the sixth step
                raise KeyboardInterrupt
            return super().loss(batch)

    alone, together, killed = (config(tmp_path / name) for name in ("alone", "together", "killed"))
    train(Fit(), alone, resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(Dying(), killed, resume=False)
    run_processes(2, train_and_resume, together, killed)
    expected = load_trained(alone)
    for run in (together, killed):  # the second was begun by one process and finished by two
        assert logged_losses(run) == pytest.approx(logged_losses(alone), abs=2e-5)
        for name, weight in load_trained(run).items():
            torch.testing.assert_close(weight, expected[name])


def test_batches_of_a_step_count_by_their_size(tmp_path: Path) -> None:
    class AtOnce(Rows):
        """The same rows, all of a step in one batch."""

        def pool(self, number: int) -> list[Any]:
            return [torch.cat(super().pool(number))]

    def without_dropout(stream: Rows) -> Fit:
        recipe = Fit()
        recipe.trained[2] = nn.Identity()
        recipe.stream = stream
        return recipe

    several, one = config(tmp_path / "several"), config(tmp_path / "one", batches_per_step=1)
    train(without_dropout(Rows()), several, resume=False)
    train(without_dropout(AtOnce()), one, resume=False)
    for name, weight in load_trained(one).items():
        torch.testing.assert_close(load_trained(several)[name], weight)


def test_a_step_is_shared_evenly_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="3 processes cannot share the 4 batches"):
        train(Fit(), config(tmp_path), resume=False, processes=Processes(0, 3))
    assert not list(tmp_path.iterdir())


def test_a_process_that_fails_ends_the_others() -> None:
    with pytest.raises(PaelleraError, match=r"of 2 failed: .*no such photo"):
        run_processes(2, fail, "no such photo")


def test_fp16_is_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r'fp16 is for GPUs: on a CPU set precision = "bf16"'):
        train(Fit(), config(tmp_path, precision="fp16"), resume=False)


def test_fp16_scales_the_loss_and_leaves_out_steps_that_overflow() -> None:
    model = nn.Linear(4, 1, bias=False)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    precision = MixedPrecision("fp16", torch.device("cpu"))
    before = model.weight.detach().clone()
    with precision.autocast():
        tiny = model(torch.ones(1, 4)).float().sum() * 1e-7  # a gradient that fp16 has no number for
    precision.backward(tiny)
    precision.step([optimizer], parameters, 1.0, 0)
    moved = (before - model.weight.detach()).flatten()
    torch.testing.assert_close(moved, torch.full((4,), 1e-7), rtol=0.5, atol=0)

    scale, before = precision.state()["scale"], model.weight.detach().clone()
    with precision.autocast():
        large = model(torch.ones(1, 4)).float().sum() * 100
    precision.backward(large)  # 6,553,600: beyond fp16
    precision.step([optimizer], parameters, 1.0, 1)
    assert torch.equal(model.weight, before)
    assert precision.state()["scale"] == scale / 2
    resumed = MixedPrecision("fp16", torch.device("cpu"))
    resumed.load(precision.state())
    assert resumed.state() == precision.state()


def test_a_gradient_that_no_scale_saves_is_an_error() -> None:
    model = nn.Linear(2, 1)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    precision = MixedPrecision("fp16", torch.device("cpu"))

    def overflow(step: int) -> None:
        precision.backward(model(torch.full((1, 2), float("inf"))).sum())
        precision.step([optimizer], parameters, 1.0, step)

    for step in range(17):
        overflow(step)
    with pytest.raises(PaelleraError, match="the gradient of step 17 is not finite"):
        overflow(17)
    assert precision.state()["scale"] < 1
    assert all(torch.isfinite(parameter).all() for parameter in parameters)
