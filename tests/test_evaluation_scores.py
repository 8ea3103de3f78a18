"""The scores of one language's captions."""

import pytest

from evaluation.scores import score_captions
from retrieval.errors import InvalidRequestError

REFERENCES = {
    "1": ["A brown dog runs over green grass.", "The dog is running."],
    "2": ["Two children play in the park."],
    "3": ["A man repairs his old bicycle at night."],
}


def test_captions_like_the_references_score_high_whatever_case_and_punctuation() -> None:
    copies = {image_id: texts[0].upper().rstrip(".") for image_id, texts in REFERENCES.items()}
    swapped = {"1": copies["2"], "2": copies["3"], "3": copies["1"]}
    good, bad = score_captions(copies, REFERENCES, "en"), score_captions(swapped, REFERENCES, "en")
    assert good.image_cider_d["2"] == pytest.approx(1000)
    assert good.cider_d == pytest.approx(sum(good.image_cider_d.values()) / 3)
    assert bad.cider_d < 20 < 600 < good.cider_d
    assert good.images == 3
    assert good.references_per_image == pytest.approx(4 / 3)


def test_only_photos_with_a_caption_and_a_reference_count() -> None:
    hypotheses = {"2": "Two children play.", "3": "A man at night.", "unknown": "Whatever."}
    references = {**REFERENCES, "2": ["Two children play."], "none": []}
    few = score_captions(hypotheses, references, "en")
    assert few == score_captions(
        {key: hypotheses[key] for key in ("2", "3")}, {key: references[key] for key in ("2", "3")}, "en"
    )
    assert set(few.image_cider_d) == {"2", "3"}
    with pytest.raises(InvalidRequestError, match="no caption in 'en'"):
        score_captions({"unknown": "Whatever."}, REFERENCES, "en")


def test_text_statistics() -> None:
    scores = score_captions({"1": "a dog and a dog and a dog", "2": "a dog", "3": "собака"}, REFERENCES, "en")
    assert scores.loops == pytest.approx(1 / 3)
    assert scores.mean_length == pytest.approx((8 + 2 + 1) / 3)
    lengths = scores.lengths
    assert (lengths.shortest, lengths.median, lengths.longest) == (1, 2, 8)
    assert lengths.references == pytest.approx((7 + 4 + 6 + 8) / 4)
    assert scores.distinct_1 == pytest.approx(4 / 11)  # a, dog, and, собака
    assert 0 < scores.rouge_l < 0.5
    assert scores.distinct_2 == pytest.approx(3 / 8)  # "a dog", "dog and", "and a" among 7 + 1 + 0
    assert scores.script == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("language", "text", "fits"),
    [
        ("ar", "كلب يجري على العشب.", True),
        ("ar", "a dog on grass", False),
        ("hi", "एक आदमी T-शर्ट पहने हुए साइकिल चला रहा है।", True),  # a Latin letter or two do no harm
        ("hi", "एक man with a bicycle", False),
        ("uk", "Чоловік і пʼять птахів", True),
        ("zh", "一只狗在草地上奔跑。", True),
        ("zh", "一只dog在草地", False),
        ("cs", "Muž v červené bundě", True),
        ("fr", "12 !", False),
    ],
)
def test_script(language: str, text: str, fits: bool) -> None:
    scores = score_captions({"1": text}, {"1": [text]}, language)
    assert scores.script == float(fits)


def test_a_loop_in_chinese_takes_more_characters_than_words_elsewhere() -> None:
    once, loop = "一个男人和一个男孩", "在草地上的狗在草地上的狗"
    assert score_captions({"1": once}, {"1": [once]}, "zh").loops == 0
    assert score_captions({"1": loop}, {"1": [loop]}, "zh").loops == 1


def test_the_signature_tells_metric_and_tokeniser() -> None:
    signature = score_captions({"1": "狗"}, {"1": ["狗"]}, "zh").signature
    assert signature == "CIDEr-D|n:4|sigma:6|df:evaluated|tok:characters|case:lower|unicode:NFC|version:1"
