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
from hub_towers import save_clip, save_dinov2, save_sentence_transformer, save_siglip2
from PIL import Image
from safetensors.torch import save_file

from app.cli import main
from models.bundle import Bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.language.hub import HubLanguageModel
from models.language.xglm import XGLM
from models.manifest import MANIFEST, record_file
from retrieval.errors import BundleError, DatastoreError

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
    """Two language models, image encoders and a text encoder, and no way to the network."""
    folder = tmp_path / "cache"
    use_cache(monkeypatch, folder)
    add_to_cache(folder, "tiny/xglm", save_xglm)
    add_to_cache(folder, "tiny/gpt2", save_gpt2)
    add_to_cache(folder, "tiny/clip", save_clip)
    add_to_cache(folder, "tiny/siglip2", save_siglip2)
    add_to_cache(folder, "tiny/multilingual", save_sentence_transformer)
    return folder


def make_bundle(
    tmp_path: Path, language_model: str = "tiny/xglm", *more: str, vision: str = "tiny/clip"
) -> Path:
    """A bundle with a datastore, by the commands that a user types."""
    bundle = tmp_path / "bundle"
    tmp_path.mkdir(exist_ok=True)
    checkpoint, captions = tmp_path / "paella.safetensors", tmp_path / "captions.jsonl"
    paella_checkpoint(checkpoint)
    models = ["--language-model", language_model, "--vision", vision, *more]
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
    assert capsys.readouterr().err == ""  # transformers does not list the half of CLIP that was not asked for
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
    explained = captioner.caption(photos(), dataclasses.replace(settings, explain=True)).images
    for image, same in zip(together, explained, strict=True):
        for plain, drawn in zip(image.captions, same.captions, strict=True):
            assert (plain.text, plain.attention) == (drawn.text, ())
            assert bool(drawn.attention) == bool(drawn.text)
            for word in drawn.attention:
                # CLIP's 2 x 2 patches see the middle three quarters of these photos' width.
                assert (len(word.weights), {len(row) for row in word.weights}) == (2, {3})
                assert sum(map(sum, word.weights)) == pytest.approx(1.0, abs=1e-5)
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


def test_captions_may_be_read_by_another_model(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = make_bundle(tmp_path / "own")
    bundle = make_bundle(tmp_path / "other", "tiny/xglm", "--text-encoder", "tiny/multilingual")
    manifest = Bundle.open(bundle).manifest
    embedder = Bundle.open(bundle).load_query_embedder()
    assert embedder.id == f"tiny/clip@{COMMIT[:12]}+tiny/multilingual@{COMMIT[:12]}"
    assert [reference.repo for reference in manifest.hub_references] == [
        "tiny/clip", "tiny/clip", "tiny/multilingual", "tiny/xglm"
    ]  # fmt: skip
    assert manifest.revision != Bundle.open(own).manifest.revision
    # Captions are where that model puts them, photos where they were.
    datastore = Bundle.open(bundle).load_datastore(embedder)
    query = embedder.embed_texts(CAPTIONS[1:2])
    (((nearest, *_),),) = datastore.neighbours(query, [("en",)], 4)
    assert nearest.text == CAPTIONS[1]
    assert nearest.score == pytest.approx(1, abs=1e-3)
    ours, others = captioner_of(own), captioner_of(bundle)
    np.testing.assert_array_equal(ours.embed_images(photos()), others.embed_images(photos()))
    assert np.abs(ours.embed_texts(CAPTIONS) - others.embed_texts(CAPTIONS)).max() > 0.1
    assert main(["bundle", "verify", str(bundle)]) == 0
    capsys.readouterr()
    assert main(["bundle", "pull", str(bundle), "--json"]) == 0
    pulled = json.loads(capsys.readouterr().out)["models"]
    assert {row["repo"] for row in pulled} == {"tiny/clip", "tiny/multilingual", "tiny/xglm"}
    # A datastore of the one is none of the other, though both have CLIP's photos.
    for opened, stored, named in ((own, bundle, "tiny/multilingual"), (bundle, own, "built with")):
        with pytest.raises(DatastoreError, match=named):
            Bundle.open(opened).load_captioner(stored / "datastore", dtype=torch.float32)
    dense = next(cache.glob("models--tiny--multilingual/snapshots/*/2_Dense/model.safetensors"))
    dense.write_bytes(dense.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"2_Dense/model\.safetensors is damaged"):
        captioner_of(bundle)


def test_photos_of_different_proportions_have_grids_of_their_own(cache: Path, tmp_path: Path) -> None:
    captioner = captioner_of(make_bundle(tmp_path, vision="tiny/siglip2"))
    wide, tall = Image.new("RGB", (100, 10), "red"), photos()[0].rotate(90, expand=True)
    settings = CaptionSettings(("en",), explain=True)
    together = captioner.caption([wide, tall], settings).images
    for photo, image, grid in zip((wide, tall), together, ((1, 10), (4, 3)), strict=True):
        (alone,) = captioner.caption([photo], settings).images
        assert alone.captions[0].text == image.captions[0].text
        assert alone.captions[0].confidence == pytest.approx(image.captions[0].confidence, abs=1e-4)
        for word in image.captions[0].attention:
            assert (len(word.weights), len(word.weights[0])) == grid
    assert together[0].captions[0].confidence != together[1].captions[0].confidence


def test_a_prefix_takes_no_photos_of_different_numbers_of_tokens(cache: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, vision="tiny/siglip2")
    torch.manual_seed(0)
    prefix = VisualPrefixBridge(VisualPrefixConfig(D, 32))
    save_file(prefix.state_dict(), bundle / "bridge.safetensors")
    record = record_file(bundle / "bridge.safetensors").model_dump()

    def change(document: dict[str, Any]) -> None:
        document["bridge"] = {"kind": "visual_prefix", "file": "bridge.safetensors", "d_memory": 32}
        document["files"]["bridge.safetensors"] = record

    edit(bundle, change)
    with pytest.raises(BundleError, match="a visual_prefix needs photos with equally many tokens"):
        captioner_of(bundle)


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
        (lambda d: d["embedder"]["hub"].update(repo="tiny/other"), "must be the image encoder"),
        (
            lambda d: d["embedder"]["hub"]["files"].update({"../x.json": {"bytes": 1, "sha256": "0" * 64}}),
            "String should match",
        ),
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
    whole = [*command, "--language-model", "tiny/xglm", "--vision"]
    add_to_cache(cache, "tiny/dinov2", save_dinov2)
    assert main([*whole, "tiny/dinov2"]) == 1
    assert "holds a 'dinov2', which compares no texts with photos" in capsys.readouterr().err
    add_to_cache(cache, "tiny/narrow", lambda folder: save_sentence_transformer(folder, dimension=20))
    assert main([*whole, "tiny/clip", "--text-encoder", "tiny/narrow"]) == 1
    assert "tiny/narrow have 20 dimensions, photos of tiny/clip have 24" in capsys.readouterr().err
    assert main([*command, "--vision", "tiny/clip", "--language-model", "tiny/xglm", "--language", "xx"]) == 2
    assert "'xx'" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_nobody_needs_a_commit_by_heart(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "pull", "paella-564m"]) == 1
    assert "openai/clip-vit-base-patch32@main is not in the cache" in capsys.readouterr().err
    assert main(["bundle", "pull", "nothing-known"]) == 2
    assert "one of paella-564m, paella-1.7b, paella-2.9b" in capsys.readouterr().err
