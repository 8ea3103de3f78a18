"""A recipe at size, tried out from drawn photos to a caption."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from app.cli import main
from models.bundle import Bundle
from models.prompts.builder import load_templates
from training.at_size.bridge import HubBridgeRun
from training.at_size.dry_run import dry_run_hub_bridge
from training.checkpoint import LOG
from training.config import read_config

CONFIGS = Path(__file__).parents[1] / "training" / "configs"


def test_two_processes_train_a_bridge_that_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    command = ["train", "bridge", "--config", str(CONFIGS / "paella-core.toml"), "--dry-run"]
    assert main([*command, "--processes", "2", "--output", str(made)]) == 0
    said = capsys.readouterr().out
    assert "paella-core: cross_attention bridge, 2,456 parameters trained, the rest frozen" in said
    assert "3 steps of 2 processes on drawn photos (bf16; en, es, hi, zh)" in said
    rows = [json.loads(line) for line in (made / "run" / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]  # written by one of the two
    assert all(0 < row["loss"] < 20 for row in rows)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made / "models"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    bundle = Bundle.open(made / "bundle")
    assert set(bundle.manifest.languages) == set(load_templates())  # the other 32 by retrieval alone
    assert bundle.manifest.bridge.settings["reduction"] == 16
    photo = made / "data" / "images" / "drawing-0.png"
    command = ["caption", str(photo), "--bundle", str(made / "bundle"), "--language", "es", "--json"]
    capsys.readouterr()
    assert main(command) == 0
    (caption,) = json.loads(capsys.readouterr().out)["images"][0]["captions"]
    assert caption["language"] == "es"
    assert len(caption["neighbours"]) >= 4
    assert caption["text"]


def test_one_process_tries_another_bridge_and_a_model_of_its_own(tmp_path: Path) -> None:
    recipe = read_config(CONFIGS / "paella-mono.toml", HubBridgeRun)
    shape = recipe.shape.model_validate({"kind": "visual_prefix"})
    changed = {"shape": shape, "precision": "fp32", "every_language": False}
    done = dry_run_hub_bridge(recipe.model_copy(update=changed))
    assert (done.processes, done.precision, done.languages) == (1, "fp32", ("en",))
    assert done.losses[-1] < done.losses[0]
    assert done.caption.language == "en"
    assert "visual_prefix bridge" in done.lines()[0]
    assert done.folder is None


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("paella", ["--processes", "2"], "use accelerate launch"),
        ("bridge", ["--dry-run", "--processes", "2"], "only the dry run of a recipe with [models] takes it"),
        ("paella", ["--resume"], "runs/paella/checkpoint.safetensors does not exist"),
    ],
)
def test_options_that_have_no_meaning_together(
    recipe: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "recipe.toml"
    text = (CONFIGS / f"{recipe}.toml").read_text(encoding="utf-8")
    config.write_text(text.replace('precision = "fp16"', 'precision = "bf16"'), encoding="utf-8")
    assert main(["train", "bridge", "--config", str(config), *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
