"""The matchers of `paellera evaluate fusion`, on drawings with the shipped bundle's frozen parts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import evaluation.fusion_cli
from app.cli import main
from evaluation.fusion_cli import compare
from evaluation.fusion_config import FusionConfig, matcher_runs
from evaluation.fusion_matchers import MatcherFamily
from evaluation.fusion_pairs import PairScorer
from evaluation.fusion_ranking import Ranking, make_ranking
from models.bundle import Bundle, default_bundle
from models.matcher import build_matcher
from retrieval.e5_states import CaptionReader
from retrieval.errors import InvalidRequestError
from training.config import read_config
from training.matcher import MatcherMaterial, MatcherRun
from training.prompt_examples import TokenisedCorpus
from training.tiny_data import make_tiny_data
from training.tower_start import TowerStart

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
LANGUAGES = ["en", "de"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MatcherMaterial]:
    """An index of drawings, settings of a comparison beside it, and the material."""
    root = tmp_path_factory.mktemp("world")
    bundle = Bundle.open(default_bundle())
    data = make_tiny_data(bundle, root / "photos")
    with (root / "images.jsonl").open("w") as index:
        for name in data.images:
            index.write(json.dumps({"image_id": name, "file": f"{name}.png", "split": "dev"}) + "\n")
    base = (CONFIGS / "matcher.toml").read_text(encoding="utf-8")
    base = base.replace("data/flickr8k/images.jsonl", f"{root}/images.jsonl")
    base = base.replace("training/configs/language.toml", str(CONFIGS / "language.toml"))
    (root / "base.toml").write_text(base, encoding="utf-8")
    (root / "fusion.toml").write_text(
        f"""
        base = "{CONFIGS}/bridge.toml"
        matcher_base = "{root}/base.toml"
        seeds = [0, 1]
        ranked_photos = 5
        ranked_captions = 4
        languages = ["en", "de"]
        timed_photos = 2
        timed_rounds = 1
        [matcher_training]
        steps = 2
        warmup_steps = 1
        photos = 4
        candidates = 2
        visual_tokens = 9
        [matchers]
        late = "{CONFIGS}/matcher-late.toml"
        scaled = "{CONFIGS}/matcher-types-scaled.toml"
        """,
        encoding="utf-8",
    )
    reader = CaptionReader(bundle.load_embedder().encoder, 2)
    start = TowerStart(
        torch.zeros(1280),
        torch.ones(()),
        0.01 * torch.randn(8, 1280, generator=torch.Generator().manual_seed(0)),
        torch.zeros(reader.width),
        torch.ones(()),
        0.01 * torch.randn(8, reader.width, generator=torch.Generator().manual_seed(1)),
    )
    material = MatcherMaterial(
        reader,
        reader.width,
        data.features,
        TokenisedCorpus(data.captions, reader.tokenise),
        TokenisedCorpus(data.neighbours, reader.tokenise),
        data.retrieved,
        start,
    )
    return root, material


def rank(
    material: MatcherMaterial, photos: Sequence[str], languages: Sequence[str], k: int
) -> dict[str, Ranking]:
    """Rankings by cosines that mean nothing."""
    rankings = {}
    for language in languages:
        captions, owner = list[list[int]](), list[int]()
        for number, photo in enumerate(photos):
            captions += material.captions.ids[language][photo]
            owner += [number] * len(material.captions.ids[language][photo])
        vectors = F.normalize(torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(3)), dim=2)
        cosines = vectors[0, : len(photos)] @ vectors[1, : len(captions)].t()
        rankings[language] = make_ranking(captions, torch.tensor(owner), cosines, k)
    return rankings


def family(config: FusionConfig, material: MatcherMaterial, asked: list[object]) -> MatcherFamily:
    def load(run: MatcherRun) -> MatcherMaterial:
        asked.append(run)
        return material

    def load_rankings(
        run: MatcherRun, photos: Sequence[str], languages: Sequence[str], k: int
    ) -> Mapping[str, Ranking]:
        asked.append((list(photos), list(languages), k))
        return rank(material, photos, languages, k)

    return MatcherFamily(config, load, load_rankings)


def test_matchers_are_trained_scored_and_timed(
    world: tuple[Path, MatcherMaterial],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, material = world
    asked: list[object] = []
    monkeypatch.setattr(
        evaluation.fusion_cli, "FAMILIES", {"matchers": lambda config: family(config, material, asked)}
    )
    command = ["evaluate", "fusion", "--config", str(root / "fusion.toml"), "--output", str(tmp_path)]
    assert main([*command, "--system", "late"]) == 0
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "run 4 of 4: scaled, seed 1" in captured.err
    assert "Matchers: recall@1 in percent" in captured.out
    assert asked[0] == ([f"drawing-{n}" for n in range(5)], LANGUAGES, 4)
    assert len(asked) == 4  # each command loads once

    document = json.loads((tmp_path / "fusion.json").read_text(encoding="utf-8"))
    (found,) = document["families"]
    systems = {system["system"]: system for system in found["systems"]}
    assert {name: system["traits"]["token types"] for name, system in systems.items()} == {
        "late": "none",
        "scaled": "after, scaled",
    }
    assert systems["scaled"]["parameters"] > systems["late"]["parameters"]
    assert len(set(found["reference"]["scores"].values())) == 1
    for name, system in systems.items():
        assert [run["seed"] for run in system["runs"]] == [0, 1]
        assert all(time > 0 for time in system["milliseconds"].values())
        for run in system["runs"]:
            for mode in ("alone", "with"):
                languages = run["details"]["languages"][mode]
                assert list(languages) == LANGUAGES
                assert all(score in (0, 20, 40, 60, 80, 100) for score in map(round, languages.values()))
                assert run["scores"][mode] == pytest.approx(sum(languages.values()) / 2)
            assert len(run["details"]["weights"]) == 2
            folder = tmp_path / "matchers" / f"{name}-{run['seed']}"
            assert (folder / "weights.safetensors").is_file()
            assert not (folder / "checkpoint.safetensors").exists()
    assert (tmp_path / "fusion.png").stat().st_size > 5000


def test_a_run_killed_after_training_is_not_trained_again(
    world: tuple[Path, MatcherMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, material = world
    config = read_config(root / "fusion.toml", FusionConfig).model_copy(update={"seeds": [0]})

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        evaluation.fusion_cli, "FAMILIES", {"matchers": lambda config: family(config, material, [])}
    )
    with monkeypatch.context() as patch:
        patch.setattr(PairScorer, "logits", die)
        with pytest.raises(KeyboardInterrupt):
            compare(config, tmp_path, names=["scaled"])
    folder = tmp_path / "matchers" / "scaled-0"
    before, log = (folder / "weights.safetensors").read_bytes(), (folder / "log.jsonl").read_text()
    compare(config, tmp_path, names=["scaled"])
    assert (folder / "weights.safetensors").read_bytes() == before
    assert (folder / "log.jsonl").read_text() == log


@pytest.mark.parametrize("shape", [{"by_word": True}, {"encoder": "bottleneck", "tower_layers": 1}])
def test_many_pairs_score_as_each_alone(
    world: tuple[Path, MatcherMaterial], shape: dict[str, object]
) -> None:
    material = world[1]
    photos = [f"drawing-{n}" for n in range(5)]
    rankings = rank(material, photos, LANGUAGES, 4)
    torch.manual_seed(0)
    settings = {"d_memory": 1280, "d_model": 16, **shape}
    matcher = build_matcher(settings, material.d_text)
    for parameter in matcher.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    matcher.eval().requires_grad_(False)
    scorer = PairScorer(material, photos, rankings)
    logits = scorer.logits(matcher)
    for language, ranking in rankings.items():
        assert logits[language].shape == ranking.found.shape
        for row, photo in enumerate(photos):
            one = scorer.score_one(matcher, scorer.one_photo(language, row))
            assert torch.allclose(one, logits[language][row], atol=1e-3)
            memory = matcher.encode_images(material.features.tokens([photo]).float())
            for column, caption in enumerate(ranking.found[row].tolist()):
                states, mask = material.read([ranking.captions[caption]])
                alone = matcher(memory, matcher.encode_texts(states, mask))
                assert torch.allclose(alone[0], logits[language][row, column], atol=1e-3)


def test_all_matchers_share_all_but_their_shape(world: tuple[Path, MatcherMaterial]) -> None:
    runs = matcher_runs(read_config(world[0] / "fusion.toml", FusionConfig))
    late, scaled = runs["late"], runs["scaled"]
    assert (late.steps, late.photos, late.candidates, late.learning_rate) == (2, 4, 2, 5e-4)
    assert scaled.shape.settings["token_types"] == "after_scaled"
    assert scaled.model_copy(update={"shape": late.shape}) == late


def test_the_settings_of_the_repository_are_in_order() -> None:
    config = read_config(CONFIGS / "fusion.toml", FusionConfig)
    assert {path.name for path in config.matchers.values()} == {
        path.name for path in CONFIGS.glob("matcher*.toml")
    }
    data = CONFIGS / "matcher.toml"
    runs = matcher_runs(
        config.model_copy(
            update={
                "matcher_base": data,
                "matchers": {name: CONFIGS / path.name for name, path in config.matchers.items()},
            }
        )
    )
    shapes = [tuple(sorted(run.shape.settings.items())) for run in runs.values()]
    assert len(set(shapes)) == len(shapes)
    assert {run.shape.settings.get("encoder") for run in runs.values()} == {
        "late",
        "early",
        "single_stream",
        "dual_stream_intra",
        "dual_stream_inter",
        "bottleneck",
    }


def test_mistakes_are_one_clear_error(
    world: tuple[Path, MatcherMaterial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = world
    text = (root / "fusion.toml").read_text(encoding="utf-8")
    base = (root / "base.toml").read_text(encoding="utf-8")
    (tmp_path / "heads.toml").write_text(f"{base}\nnum_heads = 5\n", encoding="utf-8")
    (tmp_path / "layers.toml").write_text(f"{base}\ntext_layers = 2\n", encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    for change, message in (
        ((f'matcher_base = "{root}/base.toml"', ""), "matchers need matcher_base"),
        (("steps = 2", "stepz = 2"), "base.toml with [matcher_training]: stepz"),
        (("matcher-late.toml", "none.toml"), "cannot read the recipe"),
        (("ranked_photos = 5", "ranked_photos = 40"), "has 6 photos of split 'dev', 40 are asked for"),
        ((f"{CONFIGS}/matcher-late.toml", f"{tmp_path}/heads.toml"), "5 heads do not divide 256"),
        ((f"{CONFIGS}/matcher-late.toml", f"{tmp_path}/layers.toml"), "give them one text_layers"),
    ):
        assert change[0] in text
        wrong.write_text(text.replace(*change), encoding="utf-8")
        assert main(["evaluate", "fusion", "--config", str(wrong), "--output", str(tmp_path / "output")]) == 2
        errors = capsys.readouterr().err
        assert errors.count("error: ") == 1
        assert message in errors
        assert "Traceback" not in errors


def test_a_system_of_one_family_does_not_load_the_other(
    world: tuple[Path, MatcherMaterial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, material = world
    asked: list[object] = []

    class Unloadable:
        """Stands for bridges that nobody asked for."""

        name, systems, modes = "bridges", (), {"with": "with retrieval"}

        def prepare(self) -> None:
            raise InvalidRequestError("nobody asked for this")

    families = {"bridges": lambda config: Unloadable(), "matchers": lambda c: family(c, material, asked)}
    monkeypatch.setattr(evaluation.fusion_cli, "FAMILIES", families)
    config = read_config(root / "fusion.toml", FusionConfig)
    config = config.model_copy(update={"seeds": [0], "bridges": {"gated": CONFIGS / "bridge-gated.toml"}})
    compare(config, tmp_path, names=["late"])
    assert asked
