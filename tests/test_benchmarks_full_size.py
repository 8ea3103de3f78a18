"""The benchmark of the real sizes: the same parts in small, and its counts of weights at every size."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import full_size
from benchmarks.full_size_parts import NEW_TOKENS, SIZES, Parts, drawn_photos, drawn_xglm
from benchmarks.full_size_peer import caption_with, drawn_reference
from benchmarks.full_size_report import bridge_parameters
from models.captions import CaptionSettings


def test_the_counts_of_weights_are_those_of_the_papers() -> None:
    """Millions, as computed by hand for PAELLA (r = 1, 2, 4, 8, 16) and SmallCap."""
    expected = {
        "XGLM 564M": ("88.23", "44.15", "22.11", "11.09", "5.58"),
        "XGLM 1.7B": ("277.12", "138.63", "69.39", "34.77", "17.46"),
        "XGLM 2.9B": ("554.24", "277.27", "138.78", "69.54", "34.92"),
        "GPT-2 (SmallCap)": ("28.37", "14.20", "7.11", "3.57", "1.80"),
    }
    counted = bridge_parameters()
    found = {
        name: tuple(f"{count / 1e6:.2f}" for count in counts.values()) for name, counts in counted.items()
    }
    assert found == expected
    assert counted["XGLM 564M"][16] == 5_583_360
    assert counted["XGLM 2.9B"][16] == 34_916_352


@pytest.fixture
def photos() -> list[Image.Image]:
    return list(islice(drawn_photos(), 3))


def test_the_captioner_writes_what_transformers_writes(tmp_path: Path, photos: list[Image.Image]) -> None:
    size = SIZES["tiny"]
    parts = Parts.drawn(size, torch.float32, tmp_path)
    captioner = parts.captioner(drawn_xglm(size.language, torch.float32))
    found = captioner.caption(photos, CaptionSettings(("en",))).images
    ours = [image.captions[0].text for image in found]
    reference = drawn_reference(size, parts.bridge)
    assert ours == [caption_with(reference, parts, photo) for photo in photos]
    assert {len(text.split()) for text in ours} == {NEW_TOKENS}
    assert len(set(ours)) == 3  # the photo matters
    assert all(len(set(text.split())) > 3 for text in ours)  # and the words before
    assert all(len(image.captions[0].neighbours) == 4 for image in found)


def test_quick_measures_every_arrangement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    assert full_size.main(["--quick", "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| tiny | ")]
    timed, (weights,) = rows[:-1], rows[-1:]
    assert [(row[1], row[2]) for row in timed] == [
        ("Paellera, float32", "1"),
        ("Paellera, float32", "8"),
        ("transformers, float32", "1"),
    ]
    assert all(0.1 < float(row[-1].rstrip(" |")) < 4 for row in timed)  # GB
    assert weights[3] == "6,624 |"
    assert f"{NEW_TOKENS} of {NEW_TOKENS} tokens are the same" in text


def test_what_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(full_size, "available_bytes", lambda: 2_000_000_000)
    assert full_size.main(["--size", "2.9B"]) == 1
    assert "left out: 2.9B needs about 8 GB, and 2 GB were free" in capsys.readouterr().out
