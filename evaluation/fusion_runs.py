"""What the runs of all families have in common: which photos they are scored on, and how they are kept."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from retrieval.errors import InvalidRequestError
from training.files import save_tensors
from training.photo_index import read_splits
from training.run_config import RunConfig

WEIGHTS = "weights.safetensors"

C = TypeVar("C", bound=RunConfig)


def first_photos(index: Path, split: str, count: int) -> list[str]:
    """The first photos of a split.

    Raises:
        InvalidRequestError: there are not as many, or the index cannot be read.
    """
    photos = [photo for photo, own in read_splits(index).items() if own == split]
    if len(photos) < count:
        raise InvalidRequestError(
            f"{index} has {len(photos)} photos of split '{split}', {count} are asked for"
        )
    return photos[:count]


def save_weights(trained: nn.Module, folder: Path) -> None:
    """Keep a system's weights, in bfloat16 as a bundle has them."""
    weights = {name: weight.to(torch.bfloat16) for name, weight in trained.state_dict().items()}
    save_tensors(weights, folder / WEIGHTS)


def short_run(run: C, seed: int, folder: Path) -> C:
    """A recipe with another seed and folder, and one checkpoint at the end: a killed run begins anew."""
    only_last = run.log_every * (run.steps // run.log_every + 1)
    return run.model_copy(update={"seed": seed, "output": folder, "checkpoint_every": only_last})
