"""From a checkpoint and models in the Hub's cache to captions, all tiny and with random weights."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hub_cache import COMMIT, add_to_cache, use_cache
from hub_tokenizers import byte_level, xglm
from hub_towers import save_clip
from PIL import Image
from safetensors.torch import save_file

from app.cli import main
from models.bundle import Bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from models.language.hub import HubLanguageModel
from models.language.xglm import XGLM
from models.manifest import MANIFEST
from retrieval.errors import BundleError, DatastoreError, InvalidRequestError

D, HEADS, LAYERS, VOCABULARY = 64, 4, 2, 400
CAPTIONS = ["A cat sits on a mat.", "Two dogs run: fast!", "A dog sits.", "Two cats on a mat."]


def save_xglm(folder: Path) -> None:
    xglm(folder)
    config = transformers.XGLMConfig(
        vocab_size=VOCABULARY, d_model=D, num_layers=LAYERS, attention_heads=HEADS, ffn_dim=96,
        max_position_embeddings=256,
    )  # fmt: skip
    _save_drawn(transformers.XGLMForCausalLM(config), folder)


def save_gpt2(folder: Path) -> None:
    byte_level(folder)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=D,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=256,
        bos_token_id=0,
        eos_token_id=0,
    )
    _save_drawn(transformers.GPT2LMHeadModel(config), folder)


def _save_drawn(model: Any, folder: Path) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    # In several files, as large models are.
    model.eval().save_pretrained(folder, max_shard_size="60KB")


def paella_checkpoint(path: Path, inner: int = 16) -> None:
    torch.manual_seed(1)
    weights = {}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}.encoder_attn"
        for part, shape in {
            "q_proj": (inner, D), "k_proj": (inner, 32), "v_proj": (inner, 32), "out_proj": (D, inner)
        }.items():  # fmt: skip
            weights[f"{block}.{part}.weight"] = torch.randn(shape) * 0.3
            weights[f"{block}.{part}.bias"] = torch.randn(shape[0]) * 0.3
        weights[f"{block}_layer_norm.weight"] = torch.ones(D)
        weights[f"{block}_layer_norm.bias"] = torch.zeros(D)
    weights["model.embed_tokens.weight"] = torch.zeros(2, 2)
    save_file(weights, path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two language models and a CLIP, and no way to the network."""
    folder = tmp_path / "cache"
    use_cache(monkeypatch, folder)
    add_to_cache(folder, "tiny/xglm", save_xglm)
    add_to_cache(folder, "tiny/gpt2", save_gpt2)
    add_to_cache(folder, "tiny/clip", save_clip)
    return folder


def make_bundle(tmp_path: Path, language_model: str = "tiny/xglm") -> Path:
    """A bundle with a datastore, by the commands that a user types."""
    bundle = tmp_path / "bundle"
    checkpoint, captions = tmp_path / "paella.safetensors", tmp_path / "captions.jsonl"
    paella_checkpoint(checkpoint)
    models = ["--language-model", language_model, "--vision", "tiny/clip"]
    command = ["bundle", "import-paella", str(checkpoint), "--output", str(bundle), *models]
    made = main([*command, "--language", "en", "--language", "de"])
    assert made == 0
    rows = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(CAPTIONS)]
    captions.write_text("\n".join(rows))
    store = ["--bundle", str(bundle), "--output", str(bundle / "datastore")]
    built = main(["datastore", "build", str(captions), *store])
    assert built == 0
    return bundle


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(3)]


def captioner_of(bundle: Path) -> Captioner:
    return Bundle.open(bundle).load_captioner(dtype=torch.float32)


@pytest.mark.parametrize("language_model", ["tiny/xglm", "tiny/gpt2"])
def test_a_checkpoint_becomes_a_bundle_that_captions(
    cache: Path, tmp_path: Path, language_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path, language_model)
    said = capsys.readouterr().out
    assert "not used: 1 of model.embed_tokens" in said
    captioner = captioner_of(bundle)
    expected = XGLM if language_model == "tiny/xglm" else HubLanguageModel
    assert isinstance(captioner._language_model, expected)
    settings = CaptionSettings(("en", "de"), num_captions=2)
    together = captioner.caption(photos(), settings).images
    for photo, image in zip(photos(), together, strict=True):
        (alone,) = captioner.caption([photo], settings).images
        for mine, batched in zip(alone.captions, image.captions, strict=True):
            assert mine.text == batched.text
            assert mine.confidence == pytest.approx(batched.confidence, abs=1e-3)
            assert {one.text for one in mine.neighbours} == set(CAPTIONS)
            assert [one.id for one in mine.neighbours] == [one.id for one in batched.neighbours]
    assert len({round(image.captions[0].confidence, 7) for image in together}) == 3  # the photo matters
    if expected is HubLanguageModel:
        with pytest.raises(InvalidRequestError, match="cannot explain"):
            captioner.caption(photos(), dataclasses.replace(settings, explain=True))
    assert main(["bundle", "verify", str(bundle)]) == 0
    assert main(["bundle", "info", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert COMMIT in shown
    assert main(["bundle", "pull", str(bundle), "--json"]) == 0  # everything is there
    pulled = json.loads(capsys.readouterr().out)["models"]
    assert {row["repo"] for row in pulled} == {language_model, "tiny/clip"}


def test_a_full_stop_ends_a_caption_or_does_not(cache: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert manifest["language"]["end"] == "."
    assert manifest["templates"]["en"]["opening"] == "Similar images show"
    prompts = Bundle.open(bundle).load_prompts()
    (ids,) = prompts.tokenizer.encode(["A cat sits on a mat."])
    assert prompts.tokenizer.special.end == ids[-1]
    text = "Similar images show Two cats. A caption I can generate to describe this image in english is:"
    assert prompts.tokenizer.decode(prompts.build("en", ["Two cats."])) == text


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    (bundle / MANIFEST).write_text(json.dumps(document))


def test_what_is_damaged_or_missing_is_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path)
    weights = next(cache.glob("models--tiny--xglm/snapshots/*/model-00001*"))
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model-00001.* is damaged"):
        captioner_of(bundle)
    capsys.readouterr()
    assert main(["bundle", "verify", str(bundle)]) == 1
    assert "is damaged" in capsys.readouterr().err
    weights.unlink()
    with pytest.raises(BundleError, match="is not in the cache: fetch it with paellera bundle pull"):
        captioner_of(bundle)
    assert main(["bundle", "pull", str(bundle)]) == 1
    assert "cannot be fetched" in capsys.readouterr().err
    weights.write_bytes(original)
    captioner_of(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["language"]["hub"].update(revision="main"), r"language\.hub\.revision"),
        (lambda d: d["language"]["hub"].update(repo="../x"), r"language\.hub\.repo"),
        (
            lambda d: d["vision"]["hub"]["files"].update({"a.py": {"bytes": 1, "sha256": "0" * 64}}),
            "not of a type",
        ),
        (lambda d: d["vision"]["hub"]["files"].pop("model.safetensors"), "no weights in safetensors"),
        (lambda d: d["language"].update(num_layers=3), "num_layers is 2, the manifest says 3"),
        (lambda d: d["vision"].update(tokens=7), "has 5 tokens of 32, the manifest says 7 of 32"),
        (lambda d: d["embedder"].update(dimension=25), "this bundle's have 25"),
        (lambda d: d["language"].update(end="zebra"), "no token of this vocabulary"),
        (lambda d: d.update(matcher={"file": "bridge.safetensors"}), "e5-shared-space"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    cache: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    bundle = make_bundle(tmp_path)
    edit(bundle, change)
    with pytest.raises((BundleError, DatastoreError), match=message):
        captioner_of(bundle)


def test_a_checkpoint_for_other_models_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "paella.safetensors"
    paella_checkpoint(checkpoint)
    command = ["bundle", "import-paella", str(checkpoint), "--output", str(tmp_path / "bundle")]
    assert main(command) == 1
    assert "not in the cache" in capsys.readouterr().err  # CLIP ViT-B/32 itself
    assert main([*command, "--vision", "tiny/clip"]) == 2
    assert "name its --language-model" in capsys.readouterr().err
    assert main([*command, "--vision", "tiny/clip", "--language-model", "tiny/none"]) == 1
    assert "tiny/none@main is not in the cache" in capsys.readouterr().err
    assert main([*command, "--vision", "tiny/xglm", "--language-model", "tiny/xglm"]) == 1
    assert "holds a 'xglm'; image encoders are" in capsys.readouterr().err
    assert main([*command, "--vision", "tiny/clip", "--language-model", "tiny/xglm", "--language", "xx"]) == 2
    assert "'xx'" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_nobody_needs_a_commit_by_heart(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "pull", "paella-564m"]) == 1
    assert "openai/clip-vit-base-patch32@main is not in the cache" in capsys.readouterr().err
    assert main(["bundle", "pull", "nothing-known"]) == 2
    assert "one of paella-564m, paella-1.7b, paella-2.9b" in capsys.readouterr().err
