from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from retrieval.files import replacing
from training.files import save_tensors


def write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_are_saved_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors({"a": torch.arange(6.0).view(2, 3).t()}, path, {"run": "7"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"run": "7"}
        assert file.get_tensor("a").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert path.stat().st_mode & 0o777 == 0o644
