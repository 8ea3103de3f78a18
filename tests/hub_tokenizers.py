"""Tiny tokenizers in the Hub's format, each built as those of a family of models are."""

import re
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "A cat sits on a mat.",
    "Two dogs run: fast!",
    "Eine Katze schläft.",
    "कुत्ता दौड़ता है।",
    "一只猫。",
    "A caption I can generate to describe this image in english is:",
    "Similar images show:\n\nA caption:\n\n",
]


def byte_level(folder: Path, *, start: str | None = None, end: str = "<|end|>", close: bool = False) -> Path:
    """As GPT-2, Qwen and Llama 3: bytes, words with the space before them.

    `start` in front of a text, and `end` behind it if `close`, as CLIP has it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [end, "<|other|>", *([start] if start else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}" if close else f"{start} $A",
            special_tokens=[(start, special.index(start)), (end, 0)],
        )
    return _save(
        tokenizer,
        folder,
        eos_token=end,
        bos_token=start,
        pad_token=end if close else None,
        extra_special_tokens=["<|other|>"],
    )


def xglm(folder: Path) -> Path:
    """As XGLM: pieces that begin with a space, `</s>` in front, a line break read as a space."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    # Written down, not trained: the trainer does not always come to the same vocabulary.
    letters = sorted({letter for text in TEXTS for letter in text if not letter.isspace()})
    words = sorted({f"▁{word}" for text in TEXTS for word in re.findall(r"[a-z]+", text, re.IGNORECASE)})
    pieces = [*((name, 0.0) for name in special), *((piece, -4.0) for piece in ["▁", *letters])]
    pieces += [(word, -5.0) for word in words if len(word) > 2]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return _save(tokenizer, folder, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _save(tokenizer: Tokenizer, folder: Path, **special: Any) -> Path:
    given = {name: token for name, token in special.items() if token is not None}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given).save_pretrained(folder)
    return folder
