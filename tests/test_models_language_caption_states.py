"""How the matcher reads captions."""

import torch

from models.language.caption_states import MAX_TOKENS, caption_states
from models.language.tokenizer import EOS
from models.language.xglm import XGLM, XGLMConfig

CONFIG = XGLMConfig(vocab_size=50, d_model=16, num_layers=2, num_heads=2, ffn_dim=32, max_positions=128)


def language_model() -> XGLM:
    torch.manual_seed(0)
    return XGLM(CONFIG).eval().requires_grad_(False)


def test_a_padded_batch_is_read_as_each_caption_alone() -> None:
    model = language_model()
    captions = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 17]]
    states, mask = caption_states(model, captions)
    assert states.shape == (3, 16, 16)  # eleven tokens, padded to a multiple of eight
    assert mask.sum(dim=1).tolist() == [5, 3, 11]
    for row, caption in enumerate(captions):
        alone, own = caption_states(model, [caption])
        length = len(caption) + 2
        assert own.sum() == length
        assert torch.allclose(alone[0, :length], states[row, :length], atol=1e-5)
        naive = model(torch.tensor([[EOS, *caption, EOS]]))
        assert torch.allclose(naive[0], states[row, :length], atol=1e-5)
        assert not mask[row, length:].any()


def test_very_long_captions_are_cut_and_no_gradient_is_kept() -> None:
    model = language_model().requires_grad_(True)
    long = [5 + number % 40 for number in range(MAX_TOKENS + 30)]
    states, mask = caption_states(model, [long, long[:MAX_TOKENS]])
    assert mask.sum(dim=1).tolist() == [MAX_TOKENS + 2] * 2
    assert torch.equal(states[0], states[1])
    assert not states.requires_grad
