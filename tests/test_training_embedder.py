from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F

from retrieval.embedder import Texts
from training.embedder import (
    ContrastiveModel,
    EmbedderRecipe,
    EmbedderRun,
    PairBatch,
    PairStream,
    TextSide,
    language_classifier,
)

RUN = EmbedderRun.model_validate(
    {
        "output": "unused",
        "steps": 1,
        "learning_rate": 1e-3,
        "dropout": 0,
        "text_dropout": 0,
        "token_dropout": 0,
        "data": {name: Path("unused") for name in ("captions", "index", "features", "text_vectors")},
        "shape": {"d_hidden": 8, "dimension": 16},
    }
)


def batch(languages: list[int]) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    sides = [
        TextSide(
            language,
            torch.tensor([0, 2, 3]),
            Texts(
                torch.randn(3, 2, 384, generator=generator), torch.randint(7, (3, 2, 5), generator=generator)
            ),
            torch.tensor([[True, True], [True, False], [True, False]]),
        )
        for language in languages
    ]
    return PairBatch(
        torch.rand(6, 1280, generator=generator),
        torch.randn(6, 1000, generator=generator),
        sides,
        Texts(torch.randn(2, 384, generator=generator), torch.tensor([[2, 3], [4, 0]])),
    )


def image_gradient(languages: list[int], share: float) -> torch.Tensor:
    """What a step with these languages does to the image side; language 0 is the anchor."""
    torch.manual_seed(0)
    model = ContrastiveModel(RUN, text_languages=3, vocabulary=5)
    recipe = EmbedderRecipe(model, cast(PairStream, None), anchor=0, image_gradient=share)
    recipe.loss(batch(languages)).backward()  # type: ignore[no-untyped-call]
    gradient = model.space.image_linear.weight.grad
    return torch.zeros(()) if gradient is None else gradient


def test_only_the_anchor_shapes_the_image_side() -> None:
    assert image_gradient([0], 0.0).norm() > 0
    assert image_gradient([1], 0.0).norm() == 0
    whole = image_gradient([1], 1.0)
    assert whole.norm() > 0
    assert torch.allclose(image_gradient([1], 0.25), 0.25 * whole, rtol=1e-3, atol=1e-7)


def test_missing_captions_do_not_count() -> None:
    one = batch([0])
    side = one.texts[0]
    garbage = Texts(side.texts.sentences.clone(), side.texts.tokens.clone())
    garbage.sentences[1:, 1] = 1e3
    garbage.tokens[1:, 1] = 6
    other = PairBatch(
        one.pooled,
        one.class_logits,
        [TextSide(0, side.photos, garbage, side.present)],
        one.class_names,
    )
    model = ContrastiveModel(RUN, text_languages=3, vocabulary=5).eval()
    recipe = EmbedderRecipe(model, cast(PairStream, None), anchor=0, image_gradient=0.0)
    with torch.no_grad():
        assert torch.allclose(recipe.loss(one), recipe.loss(other))


def test_languages_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (2000,), generator=generator)
    # One direction varies far more than the languages differ: distance to the means would be misled by it.
    noise = torch.randn(2000, 20, generator=generator) * torch.tensor([20.0] + [0.3] * 19)
    vectors = noise + torch.randn(4, 20, generator=generator)[labels]
    weight, bias = language_classifier(vectors, labels)
    found = F.linear(vectors, weight, bias).argmax(dim=1)
    assert (found == labels).float().mean() > 0.99
