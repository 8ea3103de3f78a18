"""All recipes in turn, on a world of coloured squares: what they leave must be a working bundle."""

import importlib.metadata
import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from datastore_build.build import build_datastore
from models.bundle import Bundle
from models.captions import CaptionSettings
from models.manifest import GenerationDefaults
from retrieval.errors import InvalidRequestError
from training import features, near, text_vectors
from training.bridge import BridgeRun, train_bridge
from training.checkpoint import load_trained
from training.config import read_config
from training.embedder import EmbedderRun, train_embedder
from training.export import export
from training.language import LanguageRun, train_language

COLOURS = {  # English, German, and what the photo shows
    "red": ("rotes", (200, 20, 20)),
    "green": ("grünes", (20, 180, 20)),
    "blue": ("blaues", (20, 20, 220)),
    "white": ("weißes", (245, 245, 245)),
}
SHAPES = {"house": "Haus", "boat": "Boot", "bed": "Bett"}

try:
    importlib.metadata.version("timm")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("timm's class names are not installed: pip install --no-deps timm", allow_module_level=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, their captions in two languages, and a recipe for each part."""
    root = tmp_path_factory.mktemp("world")
    (root / "images").mkdir()
    index, captions = [], []
    for number, (colour, shape) in enumerate(itertools.product(COLOURS, SHAPES)):
        german, rgb = COLOURS[colour]
        name = f"photo-{number}"
        picture = Image.new("RGB", (64, 64), rgb)
        picture.paste((90, 90, 90), (0, 0, 20 * (number % 3), 64))
        picture.save(root / "images" / f"{name}.png")
        index.append({"image_id": name, "file": f"images/{name}.png", "split": "train" if number else "dev"})
        for text in (f"A {colour} {shape} .", f"There is a {colour} {shape}", f"One {shape}, {colour}"):
            captions.append({"image_id": name, "lang": "en", "caption": text, "kind": "human"})
        for text in (f"Ein {german} {SHAPES[shape]}.", f"Da ist ein {german} {SHAPES[shape]}"):
            captions.append({"image_id": name, "lang": "de", "caption": text, "kind": "MT"})
    for file, rows in (("images.jsonl", index), ("captions.jsonl", captions)):
        (root / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shared = f"""
        captions = "{root}/captions.jsonl"
        index = "{root}/images.jsonl"
    """
    (root / "language.toml").write_text(f"""
        output = "{root}/language"
        steps = 200
        warmup_steps = 5
        learning_rate = 3e-3
        matrix_learning_rate = 3e-3
        batch_tokens = 512
        guide_weight = 0.3
        [data]
        {shared}
        near = "{root}/near.json"
        substituted_share = 0.2
        vocabulary_sentences = 2000
        [shape]
        vocab_size = 320
        d_model = 32
        num_layers = 2
        num_heads = 2
        ffn_dim = 64
        max_positions = 256
    """)
    (root / "embedder.toml").write_text(f"""
        output = "{root}/embedder"
        steps = 40
        warmup_steps = 5
        learning_rate = 1e-3
        photos = 8
        classes = 16
        languages = 2
        image_gradient = 0.1
        [data]
        {shared}
        features = "{root}/features"
        text_vectors = "{root}/text.safetensors"
        [shape]
        d_hidden = 32
        dimension = 24
    """)
    (root / "words.toml").write_text(f"""
        output = "{root}/words"
        start = "{root}/embedder.toml"
        steps = 40
        warmup_steps = 5
        learning_rate = 6e-3
        photos = 8
        classes = 16
        languages = 2
        dropout = 0
        token_uses = 2
        [data]
        {shared}
        features = "{root}/features"
        text_vectors = "{root}/text.safetensors"
        [shape]
        d_hidden = 32
        dimension = 24
        d_token = 8
    """)
    (root / "bridge.toml").write_text(f"""
        output = "{root}/bridge"
        language = "{root}/language.toml"
        embedder = "{root}/words.toml"
        steps = 100
        warmup_steps = 5
        learning_rate = 3e-3
        batch_tokens = 512
        [data]
        {shared}
        features = "{root}/features"
        text_vectors = "{root}/text.safetensors"
        [data.language_weights]
        en = 0.5
        de = 0.5
    """)
    (root / "matcher.toml").write_text(f"""
        output = "{root}/matcher"
        embedder = "{root}/words.toml"
        steps = 60
        warmup_steps = 5
        learning_rate = 2e-3
        photos = 6
        candidates = 3
        started_on = 50
        [data]
        {shared}
        features = "{root}/features"
        text_vectors = "{root}/text.safetensors"
        [data.language_weights]
        en = 0.5
        de = 0.5
        [shape]
        d_model = 16
        num_heads = 2
        encoder = "single_stream"
    """)
    return root


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_recipes_make_a_bundle(world: Path) -> None:
    inputs = [
        "--images",
        str(world),
        "--index",
        str(world / "images.jsonl"),
        "--output",
        str(world / "features"),
    ]
    assert features.main(inputs) == 0
    assert features.main([*inputs, "--mirror"]) == 0
    captions = str(world / "captions.jsonl")
    text_vectors.main(["--captions", captions, "--output", str(world / "text.safetensors")])
    near.main(["--captions", captions, "--output", str(world / "near.json"), "-k", "4"])

    train_language(read_config(world / "language.toml", LanguageRun), resume=False)
    first, second = (read_config(world / f"{name}.toml", EmbedderRun) for name in ("embedder", "words"))
    train_embedder(first, resume=False)
    train_embedder(second, resume=False)
    before, after = load_trained(first), load_trained(second)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert after["space.token_vectors"].shape == (len(after["space.vocabulary"]) + 2, 8)
    bridge = read_config(world / "bridge.toml", BridgeRun)
    train_bridge(bridge, resume=False)
    for part in ("language", "embedder", "bridge"):  # what words add does not show on so few photos
        assert losses(world / part)[-1] < losses(world / part)[0], part
        assert (world / part / "loss.png").is_file()

    generation = GenerationDefaults(
        max_tokens=12,
        min_tokens=1,
        beams=2,
        length_penalty=0,
        no_repeat_ngram=0,
        neighbours=2,
        min_score=-1,
        min_score_new=-1,
        copy_weight=0.2,
    )
    export(bridge, world / "bundle", generation)
    bundle = Bundle.open(world / "bundle")
    source = world / "store.jsonl"
    source.write_text(
        json.dumps({"id": "one", "texts": {"en": "A red boat.", "de": "Ein rotes Boot."}}) + "\n"
    )
    build_datastore([source], world / "store", bundle.load_embedder())
    captioner = bundle.load_captioner(world / "store")
    result = captioner.caption([Image.open(world / "images" / "photo-1.png")], CaptionSettings(("en", "de")))
    assert [caption.neighbours[0].text for caption in result.images[0].captions] == [
        "A red boat.",
        "Ein rotes Boot.",
    ]
    assert all(caption.text for caption in result.images[0].captions), result.images[0].captions


def test_a_photo_never_retrieves_its_own_captions(world: Path) -> None:
    from training.bridge import retrieved_photos
    from training.embedder import load_space
    from training.features import FeatureCache
    from training.photo_index import read_splits
    from training.text_vectors import read_text_vectors

    config = read_config(world / "bridge.toml", BridgeRun)
    splits = read_splits(config.data.index)
    rows, vectors = read_text_vectors(config.data.captions, config.data.text_vectors)
    features = FeatureCache(config.data.features)
    space = load_space(read_config(config.embedder, EmbedderRun))
    found = retrieved_photos(rows, vectors, splits, space, features, depth=6)
    assert found.keys() == {photo for photo, split in splits.items() if split == "train"}
    for photo, others in found.items():
        assert len(set(others)) == 6
        assert photo not in others
        assert all(splits[other] == "train" for other in others)


def test_a_matcher_learns_from_what_the_others_left(world: Path) -> None:
    from evaluation.fusion_ranking import load_rankings
    from training.matcher import MatcherRun, train_matcher

    config = read_config(world / "matcher.toml", MatcherRun)
    train_matcher(config, resume=False)
    assert losses(world / "matcher")[-1] < losses(world / "matcher")[0]
    photos = [f"photo-{number}" for number in range(1, 12)]
    (ranking,) = load_rankings(config, photos, ["en"], 5).values()
    assert ranking.found.shape == (11, 5)
    assert len(ranking.captions) == 33
    owner = torch.arange(11).repeat_interleave(3)
    assert torch.equal(ranking.own, owner[ranking.found] == torch.arange(11)[:, None])
    assert (ranking.cosines.diff(dim=1) <= 0).all()
    assert float(ranking.own.any(dim=1).float().mean()) > 0.5  # the embedder has learnt something
    with pytest.raises(InvalidRequestError, match="by people in de"):
        load_rankings(config, photos, ["en", "de"], 5)
