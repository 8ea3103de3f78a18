"""A CLIP and an XGLM of a few thousand weights, drawn at random, in a cache of the Hub's own format.

They have what their large siblings have: configuration, tokenizer, weights in safetensors.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

import torch

from models.hub_files import hub_library
from retrieval.hub_library import transformers_library

VISION, LANGUAGE = "tiny/clip", "tiny/xglm"  # as they are called in the cache
_COMMIT = "0" * 40
_WIDTH, _HEADS, _LAYERS = 64, 4, 2


@contextmanager
def tiny_models(cache: Path, texts: Iterable[str]) -> Iterator[None]:
    """Make `cache` the Hub's cache, with both models in it, here and in processes that are started.

    Args:
        texts: their letters are in the vocabularies.
    """
    letters = sorted({letter for text in texts for letter in text if not letter.isspace()})
    hub: Any = hub_library()
    before = {name: getattr(hub.constants, name) for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE")}
    inherited = {name: environ.get(name) for name in before}
    hub.constants.HF_HUB_CACHE, hub.constants.HF_HUB_OFFLINE = str(cache), True
    environ.update(HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1")
    try:
        _add(cache, VISION, _save_clip)
        _add(cache, LANGUAGE, lambda folder: _save_xglm(folder, letters))
        yield
    finally:
        for name, value in before.items():
            setattr(hub.constants, name, value)
            if (was := inherited[name]) is None:
                del environ[name]
            else:
                environ[name] = was


def _add(cache: Path, repo: str, save: Callable[[Path], None]) -> None:
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / _COMMIT
    snapshot.mkdir(parents=True)
    save(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(_COMMIT)


def _save_clip(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    library = transformers_library()
    start, end = "<|startoftext|>", "<|endoftext|>"
    pieces = [start, end, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    _save_tokenizer(tokenizer, folder, bos_token=start, eos_token=end, pad_token=end)
    shape = {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "projection_dim": _WIDTH,
    }
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**shape, **special, "vocab_size": len(pieces), "max_position_embeddings": 77}
    config = library.CLIPConfig(
        text_config=text,
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=_WIDTH,
    )
    _save(library.CLIPModel(config), folder)
    size = {"height": 32, "width": 32}
    library.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)


def _save_xglm(folder: Path, letters: list[str]) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    library = transformers_library()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((name, 0.0) for name in special), *((piece, -4.0) for piece in ["▁", *letters])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    _save_tokenizer(
        tokenizer, folder, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = library.XGLMConfig(
        vocab_size=len(pieces),
        d_model=_WIDTH,
        num_layers=_LAYERS,
        attention_heads=_HEADS,
        ffn_dim=2 * _WIDTH,
        max_position_embeddings=512,
    )
    _save(library.XGLMForCausalLM(config), folder)


def _save_tokenizer(tokenizer: Any, folder: Path, **special: str) -> None:
    fast = transformers_library().PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)


def _save(model: Any, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    model.eval().save_pretrained(folder)
