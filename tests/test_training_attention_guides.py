from pathlib import Path

import torch
from torch import Tensor

from models.language.xglm import XGLM, XGLMConfig
from training.attention_guides import AttentionGuide, copying_patterns
from training.optimizers import make_optimizers
from training.run_config import RunConfig
from training.sequences import Batch, Example, collate

CONFIG = XGLMConfig(vocab_size=300, d_model=64, num_layers=2, num_heads=2, ffn_dim=64, max_positions=64)
PROMPT, FIRST, SECOND = [2, 20, 21, 22], [20, 30], [21, 31]


def keys(pattern: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in pattern]


def test_patterns_follow_the_tree_of_captions() -> None:
    batch = collate([Example("photo", PROMPT, [FIRST, SECOND])])
    # Columns: 0-2 the prompt but for its last token; 3-5 and 6-8 a copy of that token and a caption each.
    patterns = copying_patterns(batch)
    assert keys(patterns.previous[0])[:9] == [[], [0], [1], [2], [3], [4], [2], [6], [7]]
    # Column 4 holds 20 again, which column 1 held: column 2 came after it. After the prompt's 21 its 22 came,
    # which each caption has its own copy of: for column 7 that is 6.
    assert keys(patterns.induction[0])[:9] == [[], [], [], [], [2], [], [], [6], []]


def random_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(8):
        words = (torch.randperm(290, generator=generator)[:12] + 10).tolist()
        rows.append(Example("photo", [2, *words, 3], [words[3:8], words[:4]], learn_prompt=True))
    return collate(rows)


def test_guided_heads_learn_where_to_look() -> None:
    torch.manual_seed(0)
    model = XGLM(CONFIG)
    guide = AttentionGuide(model)
    config = RunConfig(output=Path("unused"), steps=1, learning_rate=3e-3, matrix_learning_rate=1e-2)
    optimizers = make_optimizers(model, config)
    losses = []
    for step in range(150):
        batch = random_batch(step)
        model(batch.input_ids, batch.positions, batch.mask)
        loss = guide.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    # Both heads together: spread evenly over what is visible they would lose about 4.
    assert sum(losses[-5:]) / 5 < 0.25 * losses[0]


def test_rows_without_a_pattern_cost_nothing() -> None:
    model = XGLM(CONFIG)
    guide = AttentionGuide(model)
    batch = collate([Example("photo", [2, 20], [[21, 22]])])  # no token occurs twice
    model(batch.input_ids, batch.positions, batch.mask)
    assert torch.isfinite(guide.loss(batch))
