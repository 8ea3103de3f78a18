"""Comparisons: nothing is done twice, what came of it is summed up, and the report says all of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.fusion import Comparison, System, spread
from evaluation.fusion_plot import draw_comparison
from evaluation.fusion_report import fusion_report
from evaluation.fusion_times import interleaved_medians
from retrieval.errors import InvalidRequestError


class Sums:
    """Systems whose score is their size plus a tenth of the seed, less one without help."""

    name, measure, reference, timing = "sums", "points", "nothing at all", "time: none passes"
    modes: Mapping[str, str] = {"with": "with help", "without": "without"}
    facts: Sequence[str] = ["facts: all alike"]

    def __init__(self, sizes: Mapping[str, int], die_at: int | None = None, steps: int = 5) -> None:
        self.systems = [
            System(name, size, {"steps": steps}, {"token types": "yes"} if size > 10 else {})
            for name, size in sizes.items()
        ]
        self.done: list[str] = []
        self.timed: list[list[str]] = []
        self.prepared = 0
        self._die_at = die_at

    def prepare(self) -> None:
        self.prepared += 1

    def run(self, system: str, seed: int, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
        if len(self.done) == self._die_at:
            raise KeyboardInterrupt
        self.done.append(folder.name)
        size = next(found.parameters for found in self.systems if found.name == system)
        return {"with": size + seed / 10, "without": size + seed / 10 - 1}, {"seed": seed}

    def score_reference(self) -> dict[str, float]:
        return {"with": 3.0, "without": 2.0}

    def milliseconds(self, trained: Mapping[str, Path]) -> dict[str, dict[str, float]]:
        self.timed.append(sorted(trained))
        return {system: {"with": 2.0, "without": 1.5} for system in trained}


SIZES = {"small": 5, "large": 50}


def compare(
    family: Sums, folder: Path, seeds: Sequence[int] = (0, 1), names: Sequence[str] = ("small", "large")
) -> tuple[Comparison, list[str]]:
    log: list[str] = []
    comparison = Comparison(family, folder, seeds, log.append)
    comparison.run(names)
    return comparison, log


def test_spread_is_that_of_a_sample() -> None:
    three = spread([1.0, 2.0, 3.0])
    assert (three.mean, three.deviation, three.runs) == (2.0, 1.0, 3)
    assert str(three) == "2.0 ± 1.0"
    assert str(spread([4.25])) == "4.2"


def test_every_system_runs_with_every_seed_and_the_best_comes_first(tmp_path: Path) -> None:
    family = Sums(SIZES)
    comparison, log = compare(family, tmp_path)
    assert family.done == ["small-0", "large-0", "small-1", "large-1"]
    first, second = comparison.standings()
    assert (first.system.name, second.system.name) == ("large", "small")
    assert first.score("with").mean == pytest.approx(50.05)
    assert first.score("without").deviation == pytest.approx(0.1 / 2**0.5)
    assert first.milliseconds == {"with": 2.0, "without": 1.5}
    assert [line.split(";")[0] for line in log if line.startswith("run")] == [
        "run 1 of 4: small, seed 0", "run 2 of 4: large, seed 0",
        "run 3 of 4: small, seed 1", "run 4 of 4: large, seed 1",
    ]  # fmt: skip
    assert "left" in next(line for line in log if line.startswith("run 3"))


def test_a_killed_comparison_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare(Sums(SIZES, die_at=2), tmp_path)
    family = Sums(SIZES)
    comparison, log = compare(family, tmp_path)
    assert family.done == ["small-1", "large-1"]
    assert log[0] == "sums: 2 of 4 runs were done before"
    assert [len(standing.outcomes) for standing in comparison.standings()] == [2, 2]
    again = Sums(SIZES)
    compare(again, tmp_path)
    assert (again.done, again.timed, again.prepared) == ([], [], 0)  # all is read from the folder


def test_a_system_or_a_seed_can_be_added(tmp_path: Path) -> None:
    compare(Sums({"small": 5}), tmp_path, names=["small"])
    family = Sums(SIZES)
    comparison, _ = compare(family, tmp_path, seeds=(0, 1, 2))
    assert family.done == ["large-0", "large-1", "small-2", "large-2"]
    assert family.timed == [["large", "small"]]  # all of them anew, side by side
    assert comparison.standings()[0].score("with").runs == 3


def test_systems_not_asked_for_are_not_run_but_reported(tmp_path: Path) -> None:
    compare(Sums(SIZES), tmp_path, names=["large"])
    family = Sums(SIZES)
    comparison, _ = compare(family, tmp_path, names=["small"])
    assert family.done == ["small-0", "small-1"]
    assert len(comparison.standings()) == 2


def test_other_settings_are_refused(tmp_path: Path) -> None:
    compare(Sums(SIZES), tmp_path)
    with pytest.raises(InvalidRequestError, match=r"small-0 was made with another steps"):
        compare(Sums(SIZES, steps=6), tmp_path)
    (tmp_path / "sums" / "large-1" / "run.json").write_text("{")
    with pytest.raises(InvalidRequestError, match="delete its folder"):
        compare(Sums(SIZES), tmp_path)


def test_the_report_says_all(tmp_path: Path) -> None:
    comparison, _ = compare(Sums(SIZES), tmp_path)
    report = fusion_report([comparison], (0, 1))
    report.write(tmp_path / "fusion.md")
    report.write(tmp_path / "fusion.json")
    text = (tmp_path / "fusion.md").read_text(encoding="utf-8")
    assert "facts: all alike" in text
    assert "nothing at all: 3.0 with help, 2.0 without" in text
    assert "time: none passes" in text
    assert "](fusion.png)" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert rows[0] == ["system", "token types", "parameters", "with help", "without", "ms with help", "ms without", "runs"]  # fmt: skip # noqa: E501
    assert rows[2] == ["large", "yes", "50", "50.0 ± 0.1", "49.0 ± 0.1", "2.0", "1.5", "2"]
    assert rows[3][:3] == ["small", "–", "5"]
    document = json.loads((tmp_path / "fusion.json").read_text(encoding="utf-8"))
    (family,) = document["families"]
    assert family["reference"]["scores"] == {"with": 3.0, "without": 2.0}
    assert [run["seed"] for run in family["systems"][0]["runs"]] == [0, 1]


def test_a_reference_that_knows_no_modes_is_one_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sums, "score_reference", lambda self: {"with": 3.0, "without": 3.0})
    comparison, _ = compare(Sums(SIZES), tmp_path)
    assert "nothing at all: 3.0" in comparison.facts()


def test_the_picture_can_be_looked_at(tmp_path: Path) -> None:
    comparison, _ = compare(Sums({f"system-{n}": 10**n for n in range(1, 10)}), tmp_path, names=["system-1"])
    draw_comparison([comparison], tmp_path / "fusion.png")
    picture = Image.open(tmp_path / "fusion.png").convert("RGB")
    assert picture.width > 1000
    assert len(picture.getcolors(1 << 20) or []) > 20


def test_times_are_medians_of_rounds_in_turn_without_the_first() -> None:
    now, calls = [0.0], list[tuple[str, int]]()

    def task(name: str, costs: list[float]) -> Any:
        def run(item: int) -> None:
            calls.append((name, item))
            now[0] += costs.pop(0)

        return run

    tasks = {"a": task("a", [9.0, 9.0, 1.0, 2.0, 3.0, 4.0]), "b": task("b", [5.0] * 6)}
    medians = interleaved_medians(tasks, [1, 2], 2, clock=lambda: now[0])
    assert medians == {"a": 2500.0, "b": 5000.0}
    assert calls[:4] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
