import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retrieval.errors import InvalidRequestError
from training.checkpoint import load_trained
from training.loop import train
from training.optimizers import learning_rate_factor
from training.run_config import RunConfig
from training.streams import PooledStream


class Numbers(PooledStream):
    def pool(self, number: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(number)
        return list(torch.randn(3, 8, 6, generator=generator))


class Fit:
    """Learns a fixed linear map, with dropout so that a lost random state would show."""

    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.trained = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 6))
        self.stream = Numbers()
        self._die_at, self._seen = die_at, 0

    def loss(self, batch: Tensor) -> Tensor:
        self._seen += 1
        if self._seen == self._die_at:
            raise KeyboardInterrupt
        loss: Tensor = (self.trained(batch) - batch.flip(1)).square().mean()
        return loss


def config(output: Path, **changes: object) -> RunConfig:
    settings = {
        "output": output,
        "steps": 60,
        "warmup_steps": 5,
        "learning_rate": 0.01,
        "matrix_learning_rate": 0.01,
        "log_every": 5,
        "checkpoint_every": 10,
        "precision": "fp32",
    }
    return RunConfig.model_validate({**settings, **changes})


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    train(Fit(), config(tmp_path / "whole"), resume=False)
    with pytest.raises(KeyboardInterrupt):
        train(Fit(die_at=36), config(tmp_path / "killed"), resume=False)
    train(Fit(), config(tmp_path / "killed"), resume=True)
    whole, resumed = (load_trained(config(tmp_path / name)) for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


def test_training_lowers_the_loss_and_draws_it(tmp_path: Path) -> None:
    train(Fit(), config(tmp_path / "run", steps=200), resume=False)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] * 0.7
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="nothing to resume"):
        train(Fit(), config(tmp_path / "run"), resume=True)
    train(Fit(), config(tmp_path / "run", steps=5), resume=False)
    with pytest.raises(InvalidRequestError, match="--resume"):
        train(Fit(), config(tmp_path / "run", steps=5), resume=False)


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    train(Fit(), config(tmp_path), resume=False)
    with pytest.raises(InvalidRequestError, match="another learning_rate, weight_decay: "):
        train(Fit(), config(tmp_path, learning_rate=0.02, weight_decay=0.1), resume=True)
    train(Fit(), config(tmp_path, log_every=10), resume=True)  # this does not touch the weights


def test_an_unfinished_run_gives_no_weights(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Fit(die_at=36), config(tmp_path), resume=False)
    with pytest.raises(InvalidRequestError, match="step 30 of 60"):
        load_trained(config(tmp_path))


def test_the_learning_rate_warms_up_and_decays_to_zero(tmp_path: Path) -> None:
    run = config(tmp_path, steps=100, warmup_steps=10)
    factors = [learning_rate_factor(step, run) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[100] == 0.0
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_a_stream_continues_where_it_was() -> None:
    first, second = Numbers(), Numbers()
    for _ in range(5):
        next(first)
    place: Mapping[str, int] = first.place()
    second.seek(place)
    assert all(torch.equal(next(first), next(second)) for _ in range(10))
