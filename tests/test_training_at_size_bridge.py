"""Bridges trained into tiny models of the Hub: what is computed, what is not, and what becomes of a run."""

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import torch
import torch.nn.functional as F
import transformers
from hub_cache import add_to_cache
from hub_towers import save_sentence_transformer
from safetensors import safe_open
from torch import Tensor

from models.fusion.cross_attention import CrossAttentionConfig
from models.hub_fetch import pin
from models.hub_import import HubModels, hub_shapes
from models.language.hub import HubLanguageModel
from models.language.xglm import XGLM, XGLMConfig
from models.manifest import BridgeKind, HubEmbedderPart
from retrieval.errors import BundleError, InvalidRequestError
from training.at_size.bridge import (
    HubBridgeMaterial,
    HubBridgeRecipe,
    HubBridgeRun,
    new_hub_bridge,
    train_hub_bridge,
    train_hub_bridge_on,
)
from training.at_size.export import export_hub
from training.at_size.models import pin_models, pinned_models
from training.at_size.step_stream import StepStream
from training.at_size.tiny_models import LANGUAGE, VISION, tiny_models
from training.checkpoint import CHECKPOINT, load_trained
from training.config import check_settings, read_config
from training.mixed_precision import MixedPrecision
from training.processes import Processes
from training.sequences import IGNORE, Example

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
VOCABULARY, END, MEMORY, LAYERS, HEADS = 60, 2, 12, 2, 4
KINDS = get_args(BridgeKind)


class Features:
    """Visual tokens as a cache has them."""

    def tokens(self, image_ids: list[str]) -> Tensor:
        seeds = [torch.Generator().manual_seed(int(image_id)) for image_id in image_ids]
        return torch.stack([torch.randn(5, MEMORY, generator=seed) for seed in seeds]).bfloat16()

    def mask(self, image_ids: list[str]) -> Tensor | None:
        return None

    def image_ids(self) -> list[str]:
        return [str(number) for number in range(9)]


def draw(rng: random.Random, pool: int) -> Example:
    """A photo, a prompt and one caption, of any lengths."""
    prompt, caption = (
        [rng.randrange(4, VOCABULARY) for _ in range(rng.randint(2, longest))] for longest in (20, 6)
    )
    return Example(str(rng.randrange(9)), prompt, [caption])


def xglm(dropout: float = 0.0) -> XGLM:
    torch.manual_seed(0)
    shape = XGLMConfig(
        vocab_size=VOCABULARY, d_model=32, num_layers=LAYERS, num_heads=HEADS, ffn_dim=48, max_positions=64,
        dropout=dropout, attention_dropout=dropout,
    )  # fmt: skip
    return XGLM(shape).requires_grad_(False)


def gpt2(dropout: float = 0.0) -> HubLanguageModel:
    torch.manual_seed(0)
    shape = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=LAYERS, n_head=HEADS, n_positions=64,
        bos_token_id=0, eos_token_id=END, attn_pdrop=dropout, embd_pdrop=dropout, resid_pdrop=dropout,
    )  # fmt: skip
    return HubLanguageModel(transformers.GPT2LMHeadModel(shape)).requires_grad_(False)


MODELS: dict[str, Callable[..., XGLM | HubLanguageModel]] = {"xglm": xglm, "gpt2": gpt2}


def material(language_model: Any) -> HubBridgeMaterial:
    tokenizer = SimpleNamespace(special=SimpleNamespace(end=END))
    parts: Any = (
        language_model,
        SimpleNamespace(tokenizer=tokenizer),
        Features(),
        SimpleNamespace(draw=draw),
    )
    return HubBridgeMaterial(*parts)


def config(output: Path, **changes: Any) -> HubBridgeRun:
    settings = {
        "output": str(output),
        "steps": 6,
        "warmup_steps": 0,
        "learning_rate": 0.01,
        "log_every": 1,
        "checkpoint_every": 2,
        "precision": "fp32",
        "batch_size": 8,
        "models": {"vision": VISION, "language": LANGUAGE},
        "shape": {"reduction": 2},
        "data": {"karpathy": "none.json", "languages": ["en"], "features": "none", "neighbours": "none"},
        **changes,
    }
    return check_settings(settings, HubBridgeRun, "here")


def train_on(language_model: Any, run: HubBridgeRun, *, resume: bool = False) -> dict[str, Tensor]:
    train_hub_bridge_on(material(language_model), run, resume=resume, processes=Processes())
    return load_trained(run)


def stream(batches: int = 1) -> StepStream:
    return StepStream(draw, size=8, batches=batches, seed=0, end=END)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_of_captions_and_their_end_alone(name: str, tmp_path: Path) -> None:
    language = MODELS[name]()
    bridge = new_hub_bridge(config(tmp_path), MEMORY, language.config)
    recipe = HubBridgeRecipe(bridge, material(language), stream(), torch.device("cpu"))
    batch = next(recipe.stream)
    expected, count = torch.zeros(()), 0
    rng = random.Random("0-0")
    for row in (draw(rng, 0) for _ in range(8)):  # one by one, without padding, with every logit
        (caption,) = row.captions
        ids = [*row.prompt, *caption, END]
        state = bridge.prepare(Features().tokens([row.image_id]).float())
        given: Any = language(torch.tensor([ids[:-1]]), bridge=bridge, bridge_state=state)
        scores = language.logits(given)[0, len(row.prompt) - 1 :]
        expected = expected + F.cross_entropy(scores, torch.tensor([*caption, END]), reduction="sum")
        count += len(caption) + 1
    assert recipe.weight(batch) == count == int((batch.labels != IGNORE).sum())
    torch.testing.assert_close(recipe.loss(batch), expected / count)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_are_frozen_and_cost_no_optimiser_state(name: str, tmp_path: Path) -> None:
    language = MODELS[name](0.1)
    before = {key: weight.clone() for key, weight in language.state_dict().items()}
    run = config(tmp_path, bridge_dropout=0.1)
    trained = train_on(language, run)
    assert all(torch.equal(weight, before[key]) for key, weight in language.state_dict().items())
    assert all(parameter.grad is None for parameter in language.parameters())
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        names = list(file.keys())
        kept = [key for key in names if key.endswith(("exp_avg", "exp_avg_sq"))]
        moments = sum(file.get_tensor(key).numel() for key in kept)
    parameters = CrossAttentionConfig(LAYERS, 32, MEMORY, HEADS, 2).num_parameters
    assert sum(weight.numel() for weight in trained.values()) == parameters
    assert moments == 2 * parameters


@pytest.mark.parametrize("name", MODELS)
def test_less_memory_more_batches_and_a_pause_change_nothing(name: str, tmp_path: Path) -> None:
    """With all dropout on, where what is compared draws the same."""

    class Dying(Features):
        calls = 0

        def tokens(self, image_ids: list[str]) -> Tensor:
            self.calls += 1
            if self.calls == 8:
                raise KeyboardInterrupt
            return super().tokens(image_ids)

    dropped = {"bridge_dropout": 0.2, "batches_per_step": 2}
    plain = train_on(MODELS[name](0.2), config(tmp_path / "plain", **dropped))
    saving = config(tmp_path / "saving", **dropped, gradient_checkpointing=True)
    killed = dataclasses.replace(material(MODELS[name](0.2)), features=cast(Any, Dying()))
    with pytest.raises(KeyboardInterrupt):
        train_hub_bridge_on(killed, saving, resume=False, processes=Processes())
    for key, weight in train_on(MODELS[name](0.2), saving, resume=True).items():
        torch.testing.assert_close(weight, plain[key])

    whole = train_on(MODELS[name](), config(tmp_path / "whole"))
    parts = train_on(MODELS[name](), config(tmp_path / "parts", batches_per_step=4))
    for key, weight in parts.items():
        torch.testing.assert_close(weight, whole[key], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_bridge_learns_with_all_its_weights(kind: str, name: str, tmp_path: Path) -> None:
    language = MODELS[name]().to(torch.bfloat16).train()
    settings = {"cross_attention": {"reduction": 4}, "bottleneck": {"fusion_layer": 1}}
    run = config(tmp_path, shape={"kind": kind, **settings.get(kind, {})})
    bridge = new_hub_bridge(run, MEMORY, language.config)
    language.recompute_layers()
    recipe = HubBridgeRecipe(bridge, material(language), stream(), torch.device("cpu"))
    precision = MixedPrecision("bf16", torch.device("cpu"))
    with precision.autocast():
        loss = recipe.loss(next(recipe.stream))
    precision.backward(loss)
    # Processes wait for the gradient of every weight.
    assert [key for key, weight in bridge.named_parameters() if weight.grad is None] == []


def test_padding_of_photos_is_not_looked_at(tmp_path: Path) -> None:
    class Padded(Features):
        """One photo has three visual tokens, the others five."""

        def __init__(self, noise: float) -> None:
            self.noise = noise

        def tokens(self, image_ids: list[str]) -> Tensor:
            tokens = super().tokens(image_ids)
            return torch.where(self.mask(image_ids)[:, :, None], tokens, self.noise)

        def mask(self, image_ids: list[str]) -> Tensor:
            counts = torch.tensor([3 if image_id == "4" else 5 for image_id in image_ids])
            return torch.arange(5) < counts[:, None]

    language, losses = xglm(), []
    bridge = new_hub_bridge(config(tmp_path), MEMORY, language.config)
    for noise in (0.0, 50.0):
        parts = dataclasses.replace(material(language), features=cast(Any, Padded(noise)))
        recipe = HubBridgeRecipe(bridge, parts, stream(), torch.device("cpu"))
        batch = next(recipe.stream)
        assert "4" in batch.image_ids
        losses.append(recipe.loss(batch).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    prefixed = config(tmp_path, shape={"kind": "visual_prefix"})
    with pytest.raises(InvalidRequestError, match="a visual_prefix needs photos with equally many"):
        train_hub_bridge_on(parts, prefixed, resume=False, processes=Processes())


def test_a_step_holds_its_examples_whatever_it_is_cut_into() -> None:
    whole, parts = stream().pool(3), stream(4).pool(3)
    assert len(whole) == 1
    assert [len(batch.image_ids) for batch in parts] == [2, 2, 2, 2]
    assert [image for batch in parts for image in batch.image_ids] == whole[0].image_ids
    assert sum(batch.num_labels for batch in parts) == whole[0].num_labels
    assert parts[0].input_ids.shape[1] < parts[3].input_ids.shape[1]
    assert stream(4).pool(4)[0].image_ids != parts[0].image_ids


@pytest.mark.parametrize(
    ("recipe", "languages", "every"),
    [("paella", 35, False), ("paella-core", 4, True), ("paella-mono", 1, True)],
)
def test_the_recipes_are_the_papers(recipe: str, languages: int, every: bool) -> None:
    run = read_config(CONFIGS / f"{recipe}.toml", HubBridgeRun)
    assert len(run.data.languages) == languages
    assert run.every_language == every
    assert (run.learning_rate, run.batch_size, run.precision, run.dropout) == (1e-4, 64, "fp16", True)
    shape: Any = SimpleNamespace(num_layers=48, d_model=2048, num_heads=16)  # XGLM-2.9B
    with torch.device("meta"):
        bridge = new_hub_bridge(run, 768, shape)
    assert sum(weight.numel() for weight in bridge.parameters()) == 34_916_352


def test_what_cannot_work_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="fp16 is for GPUs"):
        train_hub_bridge(config(tmp_path, precision="fp16"), resume=False, processes=Processes())
    run = config(tmp_path, batches_per_step=2)
    with pytest.raises(InvalidRequestError, match="3 processes cannot share the 2 batches"):
        train_hub_bridge(run, resume=False, processes=Processes(0, 3))
    with pytest.raises(InvalidRequestError, match="batch_size must be a multiple of batches_per_step"):
        config(tmp_path, batches_per_step=3)
    with pytest.raises(InvalidRequestError, match="leave d_memory out"):
        new_hub_bridge(config(tmp_path, shape={"d_memory": 3}), MEMORY, xglm().config)
    with pytest.raises(InvalidRequestError, match="reduction"):
        new_hub_bridge(config(tmp_path, shape={"reduction": 3}), MEMORY, xglm().config)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    with tiny_models(tmp_path / "cache", ["a photo of two cats"]):
        yield tmp_path / "cache"


def test_a_run_keeps_to_the_commit_that_it_began_with(cache: Path, tmp_path: Path) -> None:
    run = config(tmp_path / "run")
    pin_models(run.models, run.output)
    before = pinned_models(run.output)
    assert set(before) == {"vision", "language"}  # CLIP has a text side of its own
    snapshots = cache / "models--tiny--xglm" / "snapshots"
    (snapshots / ("1" * 40)).symlink_to(snapshots / ("0" * 40))
    (cache / "models--tiny--xglm" / "refs" / "main").write_text("1" * 40)  # the branch moves on
    assert pinned_models(run.output)["language"] == before["language"]
    assert before["language"].path.name == "0" * 40
    with pytest.raises(BundleError, match="tiny/none@main is not in the cache"):
        pin_models(run.models.model_copy(update={"language": "tiny/none"}), run.output)
    with pytest.raises(BundleError, match="neither a folder nor a repository"):
        pin_models(run.models.model_copy(update={"language": "nowhere"}), run.output)


def test_a_bundle_cannot_reference_a_folder(cache: Path, tmp_path: Path) -> None:
    folder = next((cache / "models--tiny--xglm" / "snapshots").iterdir())
    run = config(tmp_path / "run", models={"vision": VISION, "language": str(folder)})
    with pytest.raises(InvalidRequestError, match="train it first"):
        export_hub(run, tmp_path / "bundle")
    pin_models(run.models, run.output)
    train_on(xglm(), run)
    with pytest.raises(InvalidRequestError, match=r"the run's language is the folder .*: a bundle names"):
        export_hub(run, tmp_path / "bundle")
    (run.output / "models.json").write_text(json.dumps({"vision": {}}))
    with pytest.raises(InvalidRequestError, match=r"models\.json is damaged"):
        export_hub(run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_captions_of_a_bundle_may_be_read_by_another_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_to_cache(cache, "tiny/multilingual", partial(save_sentence_transformer, dimension=64))
    shapes = hub_shapes(HubModels(pin(VISION), pin(LANGUAGE)))
    for text in (None, "tiny/multilingual"):
        models = {"vision": VISION, "language": LANGUAGE, "text": text}
        run = config(tmp_path / f"run-{text is None}", models=models)
        pin_models(run.models, run.output)
        weights = new_hub_bridge(run, shapes.width, shapes.language).state_dict()
        monkeypatch.setattr("training.at_size.export.load_trained", lambda _, weights=weights: weights)
        part = export_hub(run, tmp_path / f"bundle-{text is None}").embedder
        assert isinstance(part, HubEmbedderPart)
        assert (part.hub.repo, part.text_side.repo) == (VISION, text or VISION)
        assert (part.text is None) == (text is None)
