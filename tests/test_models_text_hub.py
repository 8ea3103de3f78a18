"""Text encoders made for somebody else's photos, held against what their makers compute."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hub_towers import save_mclip, save_sentence_transformer

from models.text.hub import load_hub_text
from retrieval.errors import BundleError

TEXTS = ["A cat sits on a mat.", "Two dogs run: fast!", "Eine Katze.", "A cat on a mat. " * 9]


def hidden_states(folder: Path, model: Any, text: str, length: int) -> torch.Tensor:
    """Of one text, without padding: (T, D)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"]
    hidden: torch.Tensor = model(input_ids=ids).last_hidden_state[0]
    return hidden


def test_sentence_transformers(tmp_path: Path) -> None:
    """The mean of DistilBERT's tokens, and a matrix."""
    model, dense = save_sentence_transformer(tmp_path)
    found = load_hub_text(tmp_path).encode([f" {text}\n" for text in TEXTS])
    expected = [hidden_states(tmp_path, model, text, 16).mean(dim=0) @ dense.weight.t() for text in TEXTS]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert len(hidden_states(tmp_path, model, TEXTS[3], 24)) > 16  # so that it had to be cut


def test_other_modules_of_sentence_transformers(tmp_path: Path) -> None:
    save = save_sentence_transformer
    model, dense = save(tmp_path / "cls", pooling="cls_token", activation="activation.Tanh")
    found = load_hub_text(tmp_path / "cls").encode(TEXTS)
    first = torch.stack([hidden_states(tmp_path / "cls", model, text, 16)[0] for text in TEXTS])
    torch.testing.assert_close(found, (first @ dense.weight.t()).tanh(), atol=1e-5, rtol=1e-4)
    save(tmp_path / "unit", modules=("Transformer", "Pooling", "Normalize"))
    lengths = load_hub_text(tmp_path / "unit").encode(TEXTS).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4))


def test_the_newer_way_to_write_down_pooling(tmp_path: Path) -> None:
    save_sentence_transformer(tmp_path)
    before = load_hub_text(tmp_path).encode(TEXTS)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": true}')
    torch.testing.assert_close(load_hub_text(tmp_path).encode(TEXTS), before)


def test_m_clip(tmp_path: Path) -> None:
    """The mean of XLM-R's tokens, and a matrix with a bias."""
    model, mapped = save_mclip(tmp_path)
    found = load_hub_text(tmp_path).encode(TEXTS)
    expected = [mapped(hidden_states(tmp_path, model, text, 24).mean(dim=0)) for text in TEXTS]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    save_sentence_transformer(tmp_path / "a", activation="activation.Mish")
    with pytest.raises(BundleError, match="activation Mish is not read"):
        load_hub_text(tmp_path / "a")
    save_sentence_transformer(tmp_path / "b", pooling="max_tokens")
    with pytest.raises(BundleError, match="pooling by max_tokens is not read"):
        load_hub_text(tmp_path / "b")
    change(tmp_path / "b" / "1_Pooling" / "config.json", pooling_mode_mean_tokens=True)
    with pytest.raises(BundleError, match="by mean_tokens and max_tokens is not read"):
        load_hub_text(tmp_path / "b")
    save_sentence_transformer(tmp_path / "c", modules=("Transformer", "Pooling", "LSTM"))
    with pytest.raises(BundleError, match="kind LSTM is not read"):
        load_hub_text(tmp_path / "c")
    save_sentence_transformer(tmp_path / "d", modules=("CLIPModel", "Pooling"))
    with pytest.raises(BundleError, match="does not begin with a transformer"):
        load_hub_text(tmp_path / "d")
    (tmp_path / "d" / "modules.json").write_text('[{"idx": 0, "path": "../x", "type": "Transformer"}]')
    with pytest.raises(BundleError, match=r"a module elsewhere: \.\./x"):
        load_hub_text(tmp_path / "d")
    (tmp_path / "d" / "modules.json").write_text("{}")
    with pytest.raises(BundleError, match="does not begin with a transformer"):
        load_hub_text(tmp_path / "d")
    save_mclip(tmp_path / "e", base="setu4993/LaBSE")
    with pytest.raises(BundleError, match="made of 'setu4993/LaBSE'; only XLM-R is read"):
        load_hub_text(tmp_path / "e")


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_sentence_transformer(tmp_path / "a")
    (tmp_path / "a" / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"2_Dense/model\.safetensors cannot be read"):
        load_hub_text(tmp_path / "a")
    save_mclip(tmp_path / "b")
    path = tmp_path / "b" / "model.safetensors"
    weights = load_file(path)
    for name, message in (
        ("transformer.encoder.layer.1.output.dense.bias", r"missing encoder\.layer\.1\.output\.dense\.bias"),
        ("LinearTransformation.weight", r"lack LinearTransformation\.weight"),
        ("transformer.embeddings.word_embeddings.weight", r"lack transformer\.embeddings\.word"),
    ):
        save_file({key: weight for key, weight in weights.items() if key != name}, path)
        with pytest.raises(BundleError, match=message):
            load_hub_text(tmp_path / "b")
