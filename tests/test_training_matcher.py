"""Training the matcher: what a batch is, what is learnt from it, and where it begins."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.matcher import build_matcher
from retrieval.errors import InvalidRequestError
from training.checkpoint import LOG, load_trained
from training.config import check_settings
from training.features import FeatureCache
from training.matcher import (
    MatchBatch,
    MatcherMaterial,
    MatcherRecipe,
    MatcherRun,
    MatchStream,
    new_matcher,
    train_matcher_on,
)
from training.prompt_examples import TokenisedCorpus
from training.tower_start import TowerStart, mean_states, tower_start

PHOTOS = [f"photo-{number}" for number in range(12)]
PLACES, MEMORY, WORDS = 4, 24, 40
SHAPE: dict[str, Any] = {
    "d_memory": MEMORY,
    "places": PLACES,
    "d_model": 16,
    "num_heads": 2,
    "fusion_layers": 2,
}


class DrawnFeatures(FeatureCache):
    """Visual tokens of photos that show what their captions name."""

    def __init__(self) -> None:
        self.directory = Path("drawn")

    def image_ids(self, *, mirror: bool = False) -> list[str]:
        return PHOTOS

    def tokens(self, image_ids: Any, *, mirror: bool = False) -> Tensor:
        vectors = []
        for image_id in image_ids:
            generator = torch.Generator().manual_seed(PHOTOS.index(image_id))
            tokens = torch.randn(1, MEMORY, generator=generator) + 0.1 * torch.randn(
                PLACES, MEMORY, generator=generator
            )
            vectors.append(tokens.flip(0) if mirror else tokens)
        return torch.stack(vectors).bfloat16()


class Tokens(TokenisedCorpus):
    """A corpus that is made of token ids."""

    def __init__(self, ids: dict[str, dict[str, list[list[int]]]]) -> None:
        self.ids = ids
        self.photos = {language: list(photos) for language, photos in ids.items()}


def corpus() -> Tokens:
    """Captions whose second token tells the language, the third the photo: three in "en", one in "de"."""
    rng = random.Random(0)
    ids: dict[str, dict[str, list[list[int]]]] = {"en": {}, "de": {}}
    for number, photo in enumerate(PHOTOS):
        ids["en"][photo] = [
            [4, 6, 10 + number, *rng.choices(range(30, 40), k=rng.randint(1, 4))] for _ in range(3)
        ]
        ids["de"][photo] = [[4, 7, 10 + number]]
    return Tokens(ids)


def photo_of(caption: list[int]) -> str:
    return PHOTOS[caption[2] - 10]


def config(output: Path, shape: Mapping[str, Any] | None = None, **changes: Any) -> MatcherRun:
    nowhere = Path("nowhere")
    settings = {
        "output": output,
        "embedder": nowhere,
        "data": {
            **dict.fromkeys(("captions", "index", "features", "text_vectors"), nowhere),
            "language_weights": {"en": 0.7, "de": 0.3},
        },
        "steps": 8,
        "warmup_steps": 1,
        "learning_rate": 3e-3,
        "log_every": 2,
        "checkpoint_every": 4,
        "precision": "fp32",
        "photos": 5,
        "hard": 2,
        "depth": 6,
        "candidates": 3,
        "visual_tokens": 3,
        "shape": {**SHAPE, **(shape or {})},
        **changes,
    }
    return check_settings(settings, MatcherRun, "here")


@pytest.fixture(scope="module")
def material() -> MatcherMaterial:
    torch.manual_seed(0)
    table = torch.randn(WORDS, 16)
    retrieved = {
        photo: [PHOTOS[(number + step) % len(PHOTOS)] for step in range(1, 9)]
        for number, photo in enumerate(PHOTOS)
    }
    captions = corpus()
    generator = torch.Generator().manual_seed(4)
    start = TowerStart(
        torch.zeros(MEMORY),
        torch.ones(()),
        0.2 * torch.randn(8, MEMORY, generator=generator),
        torch.zeros(16),
        torch.ones(()),
        0.2 * torch.randn(8, 16, generator=generator),
    )

    def read(token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, token_ids))
        ids = torch.tensor([[*caption, *[0] * (width - len(caption))] for caption in token_ids])
        return table[ids], ids != 0

    return MatcherMaterial(read, 16, DrawnFeatures(), captions, captions, retrieved, start)


def stream(material: MatcherMaterial, run: MatcherRun) -> MatchStream:
    return MatchStream(material.captions, material.others, material.retrieved, run)


def test_captions_are_their_photos_and_hard_ones_those_of_photos_outside_the_batch(
    material: MatcherMaterial, tmp_path: Path
) -> None:
    batches = stream(material, config(tmp_path))
    languages, counts = set(), set()
    for _ in range(60):
        batch = next(batches)
        assert len(set(batch.image_ids)) == 5
        own, hard = batch.captions[:5], batch.captions[5:]
        assert [photo_of(caption) for caption in own] == batch.image_ids
        assert {photo_of(caption) for caption in hard}.isdisjoint(batch.image_ids)
        assert len({caption[1] for caption in batch.captions}) == 1  # one language
        near = {other for photo in batch.image_ids for other in material.retrieved[photo][:6]}
        assert {photo_of(caption) for caption in hard} <= near
        languages.add(batch.captions[0][1])
        counts.add(len(hard))
    assert languages == {6, 7}
    assert max(counts) == 10  # two for each photo, as far as there are so many
    assert not next(stream(material, config(tmp_path, hard=0))).captions[5:]


def test_a_batch_depends_on_the_seed_and_its_number_alone(material: MatcherMaterial, tmp_path: Path) -> None:
    first, second = (stream(material, config(tmp_path)) for _ in range(2))
    drawn = [next(first) for _ in range(6)]
    assert first.place() == {"step": 6}
    second.seek({"step": 4})
    assert [next(second), next(second)] == drawn[4:]
    assert next(stream(material, config(tmp_path, seed=1))) != drawn[0]
    assert len({tuple(batch.image_ids) for batch in drawn}) == 6


def test_a_language_with_a_single_photo_is_left_out(material: MatcherMaterial, tmp_path: Path) -> None:
    captions = Tokens({"en": material.captions.ids["en"], "de": {PHOTOS[0]: [[4, 7, 10]]}})
    run = config(tmp_path)
    batches = MatchStream(captions, captions, material.retrieved, run)
    assert {next(batches).captions[0][1] for _ in range(20)} == {6}
    with pytest.raises(InvalidRequestError, match="no language in which two photos have captions"):
        MatchStream(Tokens({"de": captions.ids["de"]}), captions, material.retrieved, run)


ENCODERS: dict[str, dict[str, Any]] = {
    "late": {},
    "late, means": {"by_word": False, "tower_layers": 1},
    "early": {"encoder": "early"},
    "single stream": {"encoder": "single_stream", "tower_layers": 1},
    "dual stream, intra": {"encoder": "dual_stream_intra"},
    "dual stream, inter": {"encoder": "dual_stream_inter"},
    "bottleneck": {"encoder": "bottleneck", "token_types": "after_scaled"},
}


@pytest.mark.parametrize("shape", ENCODERS.values(), ids=ENCODERS)
def test_training_lowers_the_loss(shape: dict[str, Any], material: MatcherMaterial, tmp_path: Path) -> None:
    run = config(tmp_path, shape, steps=60, warmup_steps=3, log_every=10, checkpoint_every=60)
    matcher = train_matcher_on(material, run, resume=False)
    assert not matcher.training
    losses = [json.loads(line)["loss"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_resumes_to_the_same_weights(
    precision: str, material: MatcherMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"encoder": "single_stream", "tower_layers": 1, "dropout": 0.2, "token_types": "before"}
    whole, killed = (config(tmp_path / name, shape, precision=precision) for name in ("whole", "killed"))
    train_matcher_on(material, whole, resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(MatchStream, "__next__", dying(at=6))
        with pytest.raises(KeyboardInterrupt):
            train_matcher_on(material, killed, resume=False)
    train_matcher_on(material, killed, resume=True)
    one, two = load_trained(whole), load_trained(killed)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def dying(at: int) -> Any:
    original = MatchStream.__next__

    def draw(batches: MatchStream) -> MatchBatch:
        if batches.place()["step"] == at:
            raise KeyboardInterrupt
        return original(batches)

    return draw


def test_wrong_captions_are_those_that_towers_find_alike_and_never_the_own(
    material: MatcherMaterial, tmp_path: Path
) -> None:
    run = config(tmp_path, candidates=4)
    recipe = MatcherRecipe(new_matcher(run, 16), material.read, material.features, stream(material, run), run)
    logits = torch.full((3, 8), -300.0)  # so low that the softmax of all but the first is zero
    logits[:, 5] = 0.0
    logits[0, 0] = 50.0
    torch.manual_seed(0)
    for _ in range(30):
        drawn = recipe._draw_wrong(logits)
        assert drawn.shape == (3, 3)
        for row, columns in enumerate(drawn.tolist()):
            assert row not in columns
            assert 5 in columns
            assert len(set(columns)) == 3
    assert recipe._draw_wrong(logits[:, :3]).shape == (3, 2)  # no more than there are


def test_the_loss_reaches_every_weight(material: MatcherMaterial, tmp_path: Path) -> None:
    run = config(tmp_path)
    matcher = new_matcher(run, 16)
    recipe = MatcherRecipe(matcher, material.read, material.features, stream(material, run), run)
    recipe.loss(next(recipe.stream)).backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in matcher.parameters())


def test_towers_begin_where_photos_find_their_captions() -> None:
    """Photos and texts are two views of the same hidden things; the embedder's space is a third one."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 6, generator=generator)
    to_photo, to_state, to_space = (torch.randn(6, width, generator=generator) for width in (20, 14, 8))
    pooled = 3 + 10 * hidden @ to_photo
    states = -1 + 0.1 * hidden @ to_state
    vectors = F.normalize(hidden @ to_space, dim=1)
    start = tower_start(pooled[:300], pooled[:50, None], vectors[:300], states[:300], vectors[:300])
    matcher = build_matcher({"d_memory": 20, "places": 1, "d_model": 8, "num_heads": 1}, 14)
    start.apply(matcher)
    matcher.eval().requires_grad_(False)
    held_out = slice(300, 400)
    images = matcher.encode_images(pooled[held_out, None])
    texts = matcher.encode_texts(states[held_out, None], torch.ones(100, 1, dtype=torch.bool))
    logits = matcher.tower_logits(images, texts)
    assert float((logits.argmax(dim=1) == torch.arange(100)).float().mean()) > 0.8
    narrow = build_matcher({"d_memory": 20, "places": 1, "d_model": 4, "num_heads": 1}, 14)
    wide = build_matcher({"d_memory": 20, "places": 1, "d_model": 32, "num_heads": 1}, 14)
    for other in (narrow, wide):
        start.apply(other)
        width = min(8, other.config.d_model)
        assert torch.equal(other.vision_proj.weight[:width], start.vision_weight[:width])
    assert float(narrow.vision_proj.weight.detach().std()) > 1e-3


def test_mean_states_leave_padding_out(material: MatcherMaterial) -> None:
    captions = [[4, 6, 12, 30, 31, 32, 33, 34], [4, 6, 11], [5]]
    together = mean_states(material.read, captions)
    for row, caption in enumerate(captions):
        assert torch.allclose(mean_states(material.read, [caption])[0], together[row], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"widht": 3}, "a matcher has no setting widht"),
        ({"num_heads": 3}, "3 heads do not divide 16"),
        ({"encoder": "early", "tower_layers": 1}, "tower_layers must be 0"),
        ({"d_memory": 32}, "4 visual tokens of width 24 a photo: set d_memory = 24"),
        ({"places": 81}, "4 visual tokens of width 24 a photo: set places = 4"),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_line(
    shape: dict[str, Any], message: str, material: MatcherMaterial, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        train_matcher_on(material, config(tmp_path, shape), resume=False)
    assert "\n" not in str(caught.value)


def test_a_single_photo_is_no_batch(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="here: photos: "):
        config(tmp_path, photos=1)
