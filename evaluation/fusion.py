"""A controlled comparison: several systems, the same data, the same steps, the same seeds.

As VOLTA did for five BERTs (Bugliarello et al., TACL 2021): what differs is how image and text are joined,
and nothing else. A comparison is a folder. Each run, one system with one seed, leaves a file there when it is
finished, so a killed comparison goes on with the run it was at. What a system is and how it is scored its
family knows; here is what all families have in common.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from retrieval.errors import InvalidRequestError
from retrieval.files import replacing

_RUN = "run.json"
_TIMES = "times.json"
_REFERENCE = "reference.json"


@dataclass(frozen=True)
class System:
    """One of those that are compared."""

    name: str
    parameters: int  # trained
    settings: Mapping[str, Any]  # all that its scores depend on beside the seed, as JSON has it
    traits: Mapping[str, str] = field(default_factory=dict)  # column → cell, such as "token types" → "yes"


@dataclass(frozen=True)
class Outcome:
    """What a finished run came to."""

    scores: Mapping[str, float]  # mode → score
    details: Mapping[str, Any]  # for the report's JSON, such as the scores of each language
    seconds: float


class Family(Protocol):
    """Systems that are scored alike."""

    @property
    def name(self) -> str:
        """Names it on the command line and on disk, such as `bridges`."""
        ...

    @property
    def measure(self) -> str:
        """What the scores are, such as CIDEr-D × 100; more is better."""
        ...

    @property
    def modes(self) -> Mapping[str, str]:
        """Ways in which every system is scored and timed: mode → its title. The first ranks the systems."""
        ...

    @property
    def systems(self) -> Sequence[System]:
        """Those to be compared."""
        ...

    @property
    def facts(self) -> Sequence[str]:
        """What the systems have in common, a line each."""
        ...

    @property
    def timing(self) -> str:
        """Under what conditions `milliseconds` measures here, one line."""
        ...

    @property
    def reference(self) -> str:
        """What all systems should be better than, in a few words."""
        ...

    def prepare(self) -> None:
        """Load what training and timing need; more than once does no harm."""
        ...

    def run(self, system: str, seed: int, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
        """Train a system into a folder and score it: scores by mode, and details.

        What an earlier call left in the folder before it was killed is gone on from.
        """
        ...

    def score_reference(self) -> dict[str, float]:
        """Its score by mode."""
        ...

    def milliseconds(self, trained: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        """System → mode → time for one image, all measured in one go, of systems trained in these folders."""
        ...


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of some runs."""

    mean: float
    deviation: float | None  # None of a single run
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


@dataclass(frozen=True)
class Standing:
    """All that is known of a system."""

    system: System
    outcomes: Mapping[int, Outcome]  # seed → outcome; at least one
    milliseconds: Mapping[str, float]  # by mode; empty if not measured

    def score(self, mode: str) -> Spread:
        return spread([outcome.scores[mode] for outcome in self.outcomes.values()])


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of the values, at least one."""
    return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


class Comparison:
    """One family in the folder of a comparison.

    Args:
        log: told a line at the beginning and the end of every run.
    """

    def __init__(
        self, family: Family, folder: Path, seeds: Sequence[int], log: Callable[[str], None]
    ) -> None:
        self.family = family
        self._folder = folder / family.name
        self._seeds = seeds
        self._log = log

    def run(self, names: Sequence[str]) -> None:
        """Train and score the systems named, as far as that is not done, then time all that are finished.

        All systems with the first seed come first: a comparison that is not finished then has all of them.

        Raises:
            InvalidRequestError: a run in the folder was made with other settings, or its file is damaged.
        """
        systems = [system for system in self.family.systems if system.name in names]
        runs = [(system, seed) for seed in self._seeds for system in systems]
        left = [(system, seed) for system, seed in runs if self._outcome(system, seed) is None]
        if len(left) < len(runs):
            self._log(f"{self.family.name}: {len(runs) - len(left)} of {len(runs)} runs were done before")
        if left:
            self.family.prepare()
        seconds: list[float] = []
        for number, (system, seed) in enumerate(left, start=len(runs) - len(left) + 1):
            ahead = f"; {_minutes(mean(seconds) * (len(runs) - number + 1))} left" if seconds else ""
            self._log(f"run {number} of {len(runs)}: {system.name}, seed {seed}{ahead}")
            outcome = self._run(system, seed)
            seconds.append(outcome.seconds)
            scores = ", ".join(
                f"{outcome.scores[mode]:.1f} {title}" for mode, title in self.family.modes.items()
            )
            self._log(f"  {scores}, in {outcome.seconds:.0f} s")
        if not self.reference():
            self.family.prepare()
            self._log(f"scoring {self.family.reference}")
            _write(self._folder / _REFERENCE, self.family.score_reference())
        self._measure_times()

    def facts(self) -> list[str]:
        """What the systems have in common, what to hold them against, and how they were timed."""
        facts = list(self.family.facts)
        if scores := self.reference():
            found = ", ".join(f"{scores[mode]:.1f} {title}" for mode, title in self.family.modes.items())
            if len(set(scores.values())) == 1:  # it knows no modes
                found = f"{next(iter(scores.values())):.1f}"
            facts.append(f"{self.family.reference}: {found}")
        times = _read(self._folder / _TIMES)
        return [*facts, times["conditions"]] if times else facts

    def reference(self) -> dict[str, float]:
        """Scores by mode of what all systems should be better than; empty if not measured yet."""
        return _read(self._folder / _REFERENCE) or {}

    def standings(self) -> list[Standing]:
        """The systems of which some run is finished, best first."""
        times = self._times()
        found = []
        for system in self.family.systems:
            outcomes = {seed: self._outcome(system, seed) for seed in self._seeds}
            finished = {seed: outcome for seed, outcome in outcomes.items() if outcome is not None}
            if finished:
                found.append(Standing(system, finished, times.get(system.name, {})))
        first = next(iter(self.family.modes))
        return sorted(found, key=lambda standing: standing.score(first).mean, reverse=True)

    def _run(self, system: System, seed: int) -> Outcome:
        folder = self._place(system, seed)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _RUN, {"settings": dict(system.settings)})
        began = time.perf_counter()
        scores, details = self.family.run(system.name, seed, folder)
        outcome = Outcome(scores, details, round(time.perf_counter() - began, 1))
        _write(folder / _RUN, {"settings": dict(system.settings), **asdict(outcome)})
        return outcome

    def _outcome(self, system: System, seed: int) -> Outcome | None:
        """What the run's file says; None if there is none, or the run is not finished."""
        path = self._place(system, seed) / _RUN
        document = _read(path)
        if document is None:
            return None
        before, now = document.get("settings", {}), dict(system.settings)
        changed = sorted(key for key in before | now if before.get(key) != now.get(key))
        if changed:
            raise InvalidRequestError(
                f"{path.parent} was made with another {', '.join(changed)}: set that back, or choose another"
                " output folder"
            )
        if "scores" not in document:
            return None
        return Outcome(document["scores"], document["details"], document["seconds"])

    def _measure_times(self) -> None:
        """Time all systems of which a run is finished; not again if nothing has come since."""
        trained = {
            standing.system.name: self._place(standing.system, min(standing.outcomes))
            for standing in self.standings()
        }
        if trained and self._times().keys() != trained.keys():
            self.family.prepare()
            self._log(f"timing {len(trained)} systems in turn")
            times = self.family.milliseconds(trained)
            _write(self._folder / _TIMES, {"conditions": self.family.timing, "systems": times})

    def _times(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = (_read(self._folder / _TIMES) or {}).get("systems", {})
        return found

    def _place(self, system: System, seed: int) -> Path:
        return self._folder / f"{system.name}-{seed}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{path} cannot be read ({error}): delete its folder and go on") from error
    if not isinstance(document, dict):
        raise InvalidRequestError(f"{path} is not a JSON object: delete its folder and go on")
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
