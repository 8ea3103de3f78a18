import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.embedder import EmbedderConfig, SharedSpace

CONFIG = EmbedderConfig(
    d_image=20, num_classes=5, d_text=12, d_hidden=8, dimension=10, text_languages=3, bank=6
)


@pytest.fixture
def space() -> SharedSpace:
    """Random projections; the language of a sentence is the largest of its first three numbers."""
    torch.manual_seed(0)
    space = SharedSpace(CONFIG).eval().requires_grad_(False)
    for name, weight in space.state_dict().items():
        if name not in ("image_scale", "text_mean"):
            weight.normal_(std=0.3)
    space.language_gate.weight.copy_(100 * torch.eye(3, 12))
    space.language_gate.bias.zero_()
    space.bank.copy_(F.normalize(space.bank, dim=1))
    return space


def sentences(language: int, count: int = 4) -> Tensor:
    vectors = 0.1 * torch.randn(count, 12, generator=torch.Generator().manual_seed(language))
    vectors[:, :3] = 0
    vectors[:, language] = 1
    return vectors


def test_each_language_goes_through_its_own_map(space: SharedSpace) -> None:
    for language in range(3):
        known = space.embed_text(sentences(language), language)
        assert torch.allclose(space.embed_text(sentences(language)), known, atol=1e-5)
        assert not torch.allclose(space.embed_text(sentences(language), (language + 1) % 3), known, atol=0.1)


def test_what_a_search_compares_has_unit_length(space: SharedSpace) -> None:
    queries = space.query_vectors(torch.randn(3, 20), torch.randn(3, 5))
    entries = space.entry_vectors(sentences(1))
    assert queries.shape == (3, space.vector_dimension)
    assert entries.shape == (4, space.vector_dimension)
    for vectors in (queries, entries):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-5)


def test_a_caption_near_to_every_photo_scores_lower(space: SharedSpace) -> None:
    query = space.query_vectors(torch.randn(1, 20), torch.randn(1, 5))[0]
    texts = torch.cat([sentences(language) for language in range(3)])
    nearness = space.bank_nearness(space.embed_text(texts))
    space.bank_mean.copy_(nearness.mean())
    taken = -space.entry_vectors(texts)[:, -1] * query[-1]  # from each caption's score
    assert torch.equal(taken.argsort(), nearness.argsort())
    assert torch.allclose(taken, 0.75 * (nearness - nearness.mean()), atol=1e-6)


def test_nearness_is_the_same_in_blocks(space: SharedSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = space.embed_text(sentences(0, 50))
    whole = space.bank_nearness(texts)
    monkeypatch.setattr("retrieval.embedder._BLOCK", 7)
    assert torch.allclose(space.bank_nearness(texts), whole, atol=1e-6)


def test_a_class_the_classifier_is_sure_of_outweighs_what_the_photos_taught(space: SharedSpace) -> None:
    space.classes.copy_(F.normalize(space.classes, dim=1) * 2)
    sure = torch.full((1, 5), -50.0)
    sure[0, 3] = 50.0
    image = space.embed_image(1000 * torch.randn(1, 20), sure)
    assert float(image @ F.normalize(space.classes[3], dim=0)) > 0.8
