"""XGLM in the Hub's format, whole and in several files, read into our own decoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from models.language.xglm_hub import load_xglm, xglm_config
from retrieval.errors import BundleError

SHAPE = {
    "vocab_size": 120,
    "d_model": 48,
    "num_layers": 3,
    "attention_heads": 4,
    "ffn_dim": 96,
    "max_position_embeddings": 64,
}
RELEASED = {"model_type": "xglm", "activation_function": "gelu", **SHAPE}


@pytest.mark.parametrize("largest", ["1GB", "60KB"])
@torch.inference_mode()
def test_logits_are_those_of_the_saved_model(tmp_path: Path, largest: str) -> None:
    torch.manual_seed(0)
    reference = transformers.XGLMForCausalLM(transformers.XGLMConfig(**SHAPE)).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    reference.save_pretrained(tmp_path, max_shard_size=largest)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (largest == "60KB")
    ids = torch.randint(4, 120, (2, 17))
    ours = load_xglm(tmp_path)
    torch.testing.assert_close(
        ours.logits(ours(ids)), reference(input_ids=ids, use_cache=False).logits, atol=1e-4, rtol=1e-4
    )
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_weights_keep_their_precision(tmp_path: Path) -> None:
    model = transformers.XGLMForCausalLM(transformers.XGLMConfig(**SHAPE)).to(torch.float16)
    model.save_pretrained(tmp_path)
    assert load_xglm(tmp_path).dtype == torch.float16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bloom"}, "of 'bloom', not of an XGLM"),
        ({"activation_function": "relu"}, "activation is 'relu'"),
        ({"d_model": "wide"}, "d_model must not be 'wide'"),
        ({"num_layers": None}, "num_layers must not be None"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        xglm_config({**RELEASED, **change})
    with pytest.raises(BundleError, match="lacks attention_heads"):
        xglm_config({name: value for name, value in RELEASED.items() if name != "attention_heads"})


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be read"):
        load_xglm(tmp_path)
    transformers.XGLMForCausalLM(transformers.XGLMConfig(**SHAPE)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**RELEASED, "num_layers": 4}))
    with pytest.raises(BundleError, match=r"lack layers\.3\.self_attn"):
        load_xglm(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match="names a file elsewhere"):
        load_xglm(tmp_path)
