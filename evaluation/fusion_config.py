"""The settings of a comparison: `training/configs/fusion.toml`."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from training.bridge import BridgeRun
from training.config import check_settings, read_config
from training.matcher import MatcherRun

SystemName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,40}$")]  # also names a folder


class FusionConfig(BaseModel):
    """What is compared, and on what. Paths of recipes are as in those: from the working directory."""

    model_config = ConfigDict(extra="forbid")

    base: Path  # a bridge's recipe: data, frozen parts and optimiser of all systems
    training: dict[str, Any] = {}  # settings in place of the base's, for all systems alike
    bridges: dict[SystemName, Path] = {}  # system → the recipe whose bridge it is
    matcher_base: Path | None = None  # a matcher's recipe: as `base`, of all matchers
    matcher_training: dict[str, Any] = {}  # as `training`
    matchers: dict[SystemName, Path] = {}  # system → the recipe whose matcher it is
    seeds: Annotated[list[int], Field(min_length=1)]
    split: str = "dev"  # of the photos that systems are scored on
    photos: Annotated[int, Field(ge=2)] = 150  # CIDEr-D of a single photo is 0
    languages: Annotated[list[str], Field(min_length=1)]
    neighbours: PositiveInt = 4  # in the prompt of a caption with retrieval
    beams: PositiveInt = 1
    ranked_photos: Annotated[int, Field(ge=4)] = 300  # whose captions matchers rank; two halves of them
    ranked_captions: Annotated[int, Field(ge=2)] = 20  # that the embedder finds for each
    timed_photos: PositiveInt = 20
    timed_rounds: PositiveInt = 3
    timed_beams: PositiveInt = 3  # as the service does

    @model_validator(mode="after")
    def _nothing_comes_twice(self) -> Self:
        for name in ("seeds", "languages"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice")
        if self.matchers and self.matcher_base is None:
            raise ValueError("matchers need matcher_base, the recipe with their data")
        return self


def base_run(config: FusionConfig) -> BridgeRun:
    """The recipe that all bridges share: the base's with the settings of the comparison.

    Photos are not borrowed: reading the texts that takes is longer than a short run.

    Raises:
        InvalidRequestError: the base cannot be read, or a setting does not fit.
    """
    base = read_config(config.base, BridgeRun)
    alone = {"text": None, "near": None}
    settings = {**base.model_dump(exclude={"data"}), "data": {**base.data.model_dump(), **alone}}
    return check_settings({**settings, **config.training}, BridgeRun, f"{config.base} with [training]")


def bridge_runs(config: FusionConfig) -> dict[str, BridgeRun]:
    """System → its recipe, which differs from the base in shape and visual tokens alone.

    Raises:
        InvalidRequestError: as `base_run`, or a system's own recipe cannot be read.
    """
    base = base_run(config)
    runs = {}
    for name, path in config.bridges.items():
        own = read_config(path, BridgeRun)
        runs[name] = base.model_copy(update={"shape": own.shape, "visual_tokens": own.visual_tokens})
    return runs


def matcher_runs(config: FusionConfig) -> dict[str, MatcherRun]:
    """System → its recipe, which differs from that of the others in shape alone.

    Raises:
        InvalidRequestError: a recipe cannot be read, or a setting does not fit.
    """
    assert config.matcher_base is not None  # the settings were checked
    base = read_config(config.matcher_base, MatcherRun)
    where = f"{config.matcher_base} with [matcher_training]"
    base = check_settings({**base.model_dump(), **config.matcher_training}, MatcherRun, where)
    return {
        name: base.model_copy(update={"shape": read_config(path, MatcherRun).shape})
        for name, path in config.matchers.items()
    }
