"""Spoilt datastores are refused with one clear line: none crashes, hangs or takes the memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_datastores import publish

from hostile.approximate_datastores import ENTRIES as MORE_ENTRIES
from hostile.approximate_datastores import REQUESTS, spoilt_approximate
from hostile.datastores import ENTRIES, SpoiltDatastore, spoilt_datastores
from retrieval.manifest import CURRENT, live_version

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SpoiltDatastore], Path, Path]:
    """All of them, the folder that has them by their numbers, and a good one."""
    folder = tmp_path_factory.mktemp("datastores")
    good, other = folder / "good", folder / "other"
    publish(good, [f"a photo of thing {number}" for number in range(ENTRIES)])
    publish(other, [f"a picture of item {number}" for number in range(ENTRIES)])
    goods = {"flat": good}
    for number, (name, request) in enumerate(REQUESTS.items()):
        goods[name] = folder / f"good-{number}"
        publish(goods[name], [f"a photo of thing {thing}" for thing in range(MORE_ENTRIES)], index=request)
    approximate = {name: live_version(goods[name]) for name in REQUESTS}
    everything = [*spoilt_datastores(live_version(other)), *spoilt_approximate(approximate)]
    for number, one in enumerate(everything):
        copy = folder / "spoilt" / f"{number:04}"
        shutil.copytree(goods[one.of], copy)
        one.spoil(live_version(copy))
        assert (copy / CURRENT).exists()
    return everything, folder / "spoilt", good


def test_spoilt_datastores_are_refused(spoilt: tuple[list[SpoiltDatastore], Path, Path]) -> None:
    everything, folder, good = spoilt
    assert len(everything) >= 200
    assert len({one.name for one in everything}) == len(everything)
    shutil.copytree(good, folder / "good")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "hostile.open_datastores", str(folder)],
        capture_output=True,
        env=environment,
        timeout=300,
        check=False,
    )
    lines = run.stdout.decode().splitlines()
    names = [*(one.name for one in everything), "good"]
    assert run.returncode == 0, (names[len(lines[::2]) - 1], run.stderr[-2000:])
    assert len(lines) == 2 * len(names)
    results = dict(zip(names, map(json.loads, lines[1::2]), strict=True))
    untouched = results.pop("good")
    assert untouched["texts"] == ENTRIES
    messages = {one.name: results[one.name].get("refused") for one in everything}
    unclear = {name: text for name, text in messages.items() if text is not None and not _is_clear(text)}
    assert not unclear
    opened = [one for one in everything if messages[one.name] is None]
    wrong = {
        one.name: results[one.name] for one in opened if not (one.harmless and "opened" in results[one.name])
    }
    assert not wrong
    assert len(everything) - len(opened) >= 200
    for number in range(20):  # what a hash does not cover changes no answer
        flipped = results[f"bit flip {number} in the manifest"]
        assert "refused" in flipped or flipped == untouched


def _is_clear(message: str) -> bool:
    return 20 < len(message) < 1000 and "\n" not in message
