"""Recipes are tried out with the repository alone."""

import math
from pathlib import Path

import pytest
import sklearn.datasets
import torch
from PIL import Image

from app.cli import main
from models.bundle import Bundle, default_bundle
from models.captions import CaptionSettings
from retrieval.errors import BundleError, InvalidRequestError
from training.bridge import BridgeRun
from training.config import read_config
from training.dry_run import STEPS, dry_run_bridge, dry_run_matcher
from training.matcher import MatcherRun, MatcherShape
from training.tiny_data import make_tiny_data

CONFIGS = Path(__file__).parents[1] / "training" / "configs"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where none of a recipe's paths leads anywhere."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("bridge*.toml")), ids=lambda path: path.stem)
def test_every_bridge_recipe_trains_and_captions(path: Path, elsewhere: Path) -> None:
    recipe = read_config(path, BridgeRun)
    done = dry_run_bridge(recipe)
    assert len(done.losses) == STEPS
    assert all(0 < loss < 20 for loss in done.losses)
    assert done.caption.text
    assert done.caption.neighbours
    assert done.bundle is None
    assert str(done.parameters // 1000) in " ".join(done.lines()).replace(",", "")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("matcher*.toml")), ids=lambda path: path.stem)
def test_every_matcher_recipe_trains_and_gives_confidence(path: Path, elsewhere: Path) -> None:
    recipe = read_config(path, MatcherRun)
    done = dry_run_matcher(recipe)
    assert len(done.losses) == STEPS
    assert all(0 < loss < 20 for loss in done.losses)
    assert done.caption.text
    assert 0 < done.caption.confidence < 1
    assert str(recipe.shape.settings["encoder"]) in done.lines()[0]
    assert not list(elsewhere.iterdir())


def test_a_tried_matcher_is_what_gives_confidence(elsewhere: Path) -> None:
    done = dry_run_matcher(read_config(CONFIGS / "matcher-bottleneck.toml", MatcherRun), Path("tried"))
    assert done.bundle == Path("tried")
    tried = Bundle.open(elsewhere / "tried")
    assert tried.manifest.matcher is not None
    assert tried.manifest.matcher.settings["encoder"] == "bottleneck"
    captioner = tried.load_captioner(dtype=torch.float32)
    # Unlike a drawing, this is like the training photos; of others every matcher says 0.5.
    photo = Image.open(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").convert("RGB")
    caption = captioner.caption([photo], CaptionSettings(("en",))).images[0].captions[0]
    ((logit,),) = captioner.match([photo], [[caption.text]])
    assert abs(logit) > 0.01
    assert caption.confidence == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


def test_more_text_layers_than_there_are_is_said(elsewhere: Path) -> None:
    recipe = read_config(CONFIGS / "matcher.toml", MatcherRun)
    deeper = MatcherShape.model_validate({**recipe.shape.settings, "text_layers": 13})
    with pytest.raises(InvalidRequestError, match="the text encoder has 12 layers, not 13"):
        dry_run_matcher(recipe.model_copy(update={"shape": deeper}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_bridge_trains_in_either_precision(precision: str, elsewhere: Path) -> None:
    recipe = read_config(CONFIGS / "bridge-prefix-linear.toml", BridgeRun)
    assert dry_run_bridge(recipe.model_copy(update={"precision": precision})).caption.text


def test_the_bundle_is_kept_where_it_is_wanted(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIGS / "bridge-query.toml"
    command = ["train", "bridge", "--config", str(config), "--dry-run", "--output", "tried"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "query_transformer bridge" in output
    assert "paellera caption PHOTO --bundle tried" in output

    source, tried = Bundle.open(default_bundle()), Bundle.open(elsewhere / "tried")
    assert tried.manifest.bridge.kind == "query_transformer"
    assert tried.manifest.name == "tried"
    assert tried.manifest.revision != source.manifest.revision
    assert tried.manifest.language == source.manifest.language
    assert source.manifest.provenance in tried.manifest.provenance
    photo = Image.new("RGB", (40, 40), (30, 90, 200))
    settings = CaptionSettings(("en",))
    captions = [bundle.load_captioner().caption([photo], settings) for bundle in (source, tried)]
    texts = [caption.images[0].captions[0] for caption in captions]
    assert texts[0].neighbours == texts[1].neighbours
    assert texts[0].text != texts[1].text

    assert main(command) == 2  # it is not overwritten
    assert "tried is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", "--resume"], "leave --resume out"),
        (["--output", "somewhere"], "only a dry run takes it"),
    ],
)
def test_options_that_have_no_meaning_together(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "bridge", "--config", str(CONFIGS / "bridge.toml"), *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('kind = "bottleneck"\nreduction = 2', "no setting reduction"),
        ('kind = "perceiver"', "shape.kind"),
        ("d_memory = 64", "set d_memory = 1280"),
    ],
)
def test_a_recipe_that_cannot_work_is_one_line(
    shape: str, message: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = (CONFIGS / "bridge.toml").read_text(encoding="utf-8").partition("[shape]")[0]
    Path("wrong.toml").write_text(f"{base}[shape]\n{shape}\n", encoding="utf-8")
    assert main(["train", "bridge", "--config", "wrong.toml", "--dry-run"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_without_a_bundle_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAELLERA_BUNDLE", str(tmp_path / "none"))
    with pytest.raises(BundleError, match="no bundle at"):
        dry_run_bridge(read_config(CONFIGS / "bridge.toml", BridgeRun))


def test_languages_without_captions_are_refused(elsewhere: Path) -> None:
    recipe = read_config(CONFIGS / "bridge.toml", BridgeRun)
    data = recipe.data.model_copy(update={"language_weights": {"xx": 1.0}})
    with pytest.raises(InvalidRequestError, match="no caption to learn in xx"):
        dry_run_bridge(recipe.model_copy(update={"data": data}))


def test_a_drawing_never_finds_its_own_captions(tmp_path: Path) -> None:
    data = make_tiny_data(Bundle.open(default_bundle()), tmp_path)
    assert len({image.tobytes() for image in data.images.values()}) == len(data.images)
    assert data.features.image_ids(mirror=True) == list(data.images)
    for name, found in data.retrieved.items():
        for language, captions in data.captions.texts.items():
            texts = {text for entry in found for text in data.neighbours.texts[language][entry]}
            assert texts.isdisjoint(captions[name])
            assert texts
