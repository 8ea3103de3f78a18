"""`paellera evaluate fusion` on drawings, with the shipped bundle's frozen parts."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import evaluation.fusion_cli
from app.cli import main
from evaluation.fusion_bridges import BridgeFamily
from evaluation.fusion_captions import FeatureCaptioner
from evaluation.fusion_cli import compare
from evaluation.fusion_config import FusionConfig, bridge_runs
from models.bundle import Bundle, default_bundle
from retrieval.errors import InvalidRequestError
from training.bridge import BridgeMaterial, BridgeRun
from training.config import read_config
from training.dry_run import bridge_material
from training.tiny_data import make_tiny_data

CONFIGS = Path(__file__).parents[1] / "training" / "configs"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BridgeMaterial]:
    """Drawings with captions on disk, settings of a comparison beside them, and the material."""
    root = tmp_path_factory.mktemp("world")
    bundle = Bundle.open(default_bundle())
    data = make_tiny_data(bundle, root / "photos")
    with (root / "images.jsonl").open("w") as index, (root / "captions.jsonl").open("w") as captions:
        for name in data.images:
            index.write(json.dumps({"image_id": name, "file": f"{name}.png", "split": "dev"}) + "\n")
            for language in ("en", "de"):
                for text in data.captions.texts[language][name]:
                    row = {"image_id": name, "lang": language, "caption": text, "kind": "human"}
                    captions.write(json.dumps(row) + "\n")
    base = (CONFIGS / "bridge.toml").read_text(encoding="utf-8")
    base = base.replace("data/flickr8k/captions.jsonl.gz", f"{root}/captions.jsonl")
    base = base.replace("data/flickr8k/images.jsonl", f"{root}/images.jsonl")
    base = base.replace("training/configs/language.toml", str(CONFIGS / "language.toml"))
    (root / "base.toml").write_text(base, encoding="utf-8")
    (root / "fusion.toml").write_text(
        f"""
        base = "{root}/base.toml"
        seeds = [0, 1]
        photos = 4
        languages = ["en", "de"]
        timed_photos = 1
        timed_rounds = 1
        timed_beams = 2
        [training]
        steps = 2
        warmup_steps = 1
        batch_tokens = 512
        [bridges]
        grouped = "{CONFIGS}/bridge-grouped.toml"
        prefix = "{CONFIGS}/bridge-prefix-linear.toml"
        """,
        encoding="utf-8",
    )
    return root, bridge_material(bundle, data)


def test_bridges_are_trained_scored_and_timed(
    world: tuple[Path, BridgeMaterial],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, material = world
    asked: list[tuple[BridgeRun, Sequence[str]]] = []

    def load(run: BridgeRun, photos: Sequence[str]) -> BridgeMaterial:
        asked.append((run, photos))
        return material

    monkeypatch.setattr(evaluation.fusion_cli, "FAMILIES", {"bridges": lambda c: BridgeFamily(c, load)})
    command = ["evaluate", "fusion", "--config", str(root / "fusion.toml"), "--output", str(tmp_path)]
    assert main([*command, "--system", "prefix"]) == 0
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "run 4 of 4: grouped, seed 1" in captured.err
    assert "Bridges: CIDEr-D" in captured.out
    assert [photos for _, photos in asked] == [[f"drawing-{n}" for n in range(4)]] * 2

    document = json.loads((tmp_path / "fusion.json").read_text(encoding="utf-8"))
    (family,) = document["families"]
    assert {system["system"] for system in family["systems"]} == {"grouped", "prefix"}
    for system in family["systems"]:
        assert [run["seed"] for run in system["runs"]] == [0, 1]
        assert len({run["scores"]["with"] for run in system["runs"]}) == 2
        assert all(time > 0 for time in system["milliseconds"].values())
        for run in system["runs"]:
            languages = run["details"]["languages"]["with"]
            mean = sum(scores["cider_d"] for scores in languages.values()) / 2
            assert run["scores"]["with"] == pytest.approx(mean)
            assert run["details"]["loss"] > 0
            folder = tmp_path / "bridges" / f"{system['system']}-{run['seed']}"
            written = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
            assert {len(written[mode][code]) for mode in written for code in written[mode]} == {4}
            assert not (folder / "checkpoint.safetensors").exists()
    assert (tmp_path / "fusion.png").stat().st_size > 5000


def test_a_run_killed_after_training_is_not_trained_again(
    world: tuple[Path, BridgeMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, material = world
    config = read_config(root / "fusion.toml", FusionConfig).model_copy(update={"seeds": [0]})

    def die(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    families = {"bridges": lambda config: BridgeFamily(config, lambda *_: material)}
    monkeypatch.setattr(evaluation.fusion_cli, "FAMILIES", families)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureCaptioner, "caption", die)
        with pytest.raises(KeyboardInterrupt):
            compare(config, tmp_path, names=["prefix"])
    folder = tmp_path / "bridges" / "prefix-0"
    before = (folder / "weights.safetensors").read_bytes()
    log = (folder / "log.jsonl").read_text()
    compare(config, tmp_path, names=["prefix"])
    assert (folder / "weights.safetensors").read_bytes() == before
    assert (folder / "log.jsonl").read_text() == log  # with the seconds that its steps took


def test_all_bridges_share_all_but_their_shape(world: tuple[Path, BridgeMaterial]) -> None:
    runs = bridge_runs(read_config(world[0] / "fusion.toml", FusionConfig))
    grouped, prefix = runs["grouped"], runs["prefix"]
    assert (grouped.steps, grouped.learning_rate, grouped.data.text) == (2, 1.5e-3, None)
    assert (grouped.visual_tokens, prefix.visual_tokens) == (64, 81)
    assert grouped.shape.kind == "cross_attention"
    same = {"shape": grouped.shape, "visual_tokens": grouped.visual_tokens}
    assert prefix.model_copy(update=same) == grouped


def test_captions_alone_are_those_of_the_batch(world: tuple[Path, BridgeMaterial]) -> None:
    captioner = FeatureCaptioner(world[1], neighbours=2, dtype=torch.float32)
    photos = [f"drawing-{n}" for n in range(3)]
    together = captioner.caption(None, photos, ["en", "de"], retrieval=True, beams=1)
    alone = [captioner.caption(None, [photo], ["de"], retrieval=True, beams=1) for photo in photos]
    assert [together["de"][photo] for photo in photos] == [
        one["de"][photo] for one, photo in zip(alone, photos, strict=True)
    ]
    bare = captioner.caption(None, photos, ["de"], retrieval=False, beams=1)
    assert len(set(bare["de"].values())) == 1  # without bridge and neighbours it knows nothing
    assert len(set(together["de"].values())) > 1


def test_the_settings_of_the_repository_are_in_order() -> None:
    config = read_config(CONFIGS / "fusion.toml", FusionConfig)
    assert {path.name for path in config.bridges.values()} == {
        path.name for path in CONFIGS.glob("bridge*.toml")
    }
    assert len(config.seeds) > 1


def test_mistakes_are_one_clear_error(
    world: tuple[Path, BridgeMaterial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = world
    text = (root / "fusion.toml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    for change, options, message in (
        (("", ""), ["--system", "flamingo"], "no system flamingo (there are grouped, prefix)"),
        (("", ""), ["--only", "matchers"], "no family 'matchers' (there are bridges)"),
        (("seeds = [0, 1]", "seeds = []"), [], "seeds"),
        (("seeds = [0, 1]", "seeds = [1, 1]"), [], "seeds names something twice"),
        (("steps = 2", "stepz = 2"), [], "base.toml with [training]: stepz"),
        (("bridge-grouped.toml", "none.toml"), [], "cannot read the recipe"),
        (("photos = 4", "photos = 40"), [], "has 6 photos of split 'dev', 40 are asked for"),
        (('"en", "de"', '"en", "cs"'), [], "no captions of these photos in cs"),
    ):
        wrong.write_text(text.replace(*change) if change[0] else text, encoding="utf-8")
        output = tmp_path / "output"
        assert main(["evaluate", "fusion", "--config", str(wrong), "--output", str(output), *options]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert message in errors
        assert errors.count("\n") == 1


def test_nothing_to_compare_is_said(world: tuple[Path, BridgeMaterial], tmp_path: Path) -> None:
    config = read_config(world[0] / "fusion.toml", FusionConfig).model_copy(update={"bridges": {}})
    with pytest.raises(InvalidRequestError, match="nothing to compare"):
        compare(config, tmp_path)
