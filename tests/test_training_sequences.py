import random

import torch

from models.language.xglm import XGLM, XGLMConfig
from training.loss import linear_cross_entropy
from training.sequences import IGNORE, Example, collate, pack_by_length

PROMPT = [2, 5, 6, 7, 8]
CAPTIONS = [[10, 11, 12], [20, 21], [30, 31, 32, 33]]


def test_captions_after_one_prompt_are_as_each_alone() -> None:
    torch.manual_seed(0)
    model = XGLM(XGLMConfig(vocab_size=50, d_model=32, num_layers=2, num_heads=4, ffn_dim=64)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = collate([Example("a", PROMPT, CAPTIONS), Example("b", [2, 9], [[40]])])
    with torch.no_grad():
        together = model(batch.input_ids, batch.positions, batch.mask)
        packed = together[0][batch.labels[0] != IGNORE]
        alone = [model(torch.tensor([PROMPT + caption]))[0, len(PROMPT) - 1 :] for caption in CAPTIONS]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)
    labels = batch.labels[0][batch.labels[0] != IGNORE].tolist()
    assert labels == [token for caption in CAPTIONS for token in [*caption, 2]]


def test_the_prompt_is_learnt_only_when_asked() -> None:
    plain = collate([Example("a", PROMPT, CAPTIONS)])
    learnt = collate([Example("a", PROMPT, CAPTIONS, learn_prompt=True)])
    assert plain.num_labels == 12
    assert learnt.num_labels == 12 + len(PROMPT) - 1
    assert learnt.labels[0, : len(PROMPT) - 1].tolist() == PROMPT[1:]


def test_packing_loses_no_row_and_keeps_the_bound() -> None:
    rng = random.Random(0)
    examples = [
        Example(str(i), PROMPT, [list(range(4, 4 + rng.randint(1, 40)))] * rng.randint(1, 3))
        for i in range(300)
    ]
    batches = pack_by_length(examples, tokens=1024)
    assert sorted(e.image_id for batch in batches for e in batch) == sorted(e.image_id for e in examples)
    assert all(collate(batch).input_ids.numel() <= 1024 for batch in batches)


def test_the_fused_loss_is_cross_entropy_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1500, 24, generator=generator, requires_grad=True)
    weight = torch.randn(70, 24, generator=generator, requires_grad=True)
    labels = torch.randint(70, (1500,), generator=generator)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum") / 3
    gradients = torch.autograd.grad(expected, [hidden, weight])
    actual = linear_cross_entropy(hidden, weight, labels) / 3
    torch.testing.assert_close(actual, expected)
    for mine, reference in zip(torch.autograd.grad(actual, [hidden, weight]), gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)
