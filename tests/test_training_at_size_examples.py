"""Examples at size: photo, prompt and caption of one language, drawn alike in every process."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import caption_id, translation, write_karpathy, write_rows
from hub_tokenizers import xglm

from models.language.hub_tokenizer import HubTokenizer
from models.prompts.builder import PromptBuilder, load_templates
from retrieval.errors import InvalidRequestError
from training.at_size.caption_data import SizedData, read_caption_data
from training.at_size.examples import SizedExamples
from training.at_size.neighbour_file import NO_CAPTION, Neighbours
from training.example_stream import ExampleStream
from training.sequences import Example

VOCABULARY = 300
GERMAN = {
    (11, 0): ("A red kite over the dunes .", "Eine Katze"),
    (11, 2): ("Wind lifts a kite .", "Katze schläft"),
    (12, 1): ("Goats on a slope .", "Eine Katze schläft"),
}
NEIGHBOURS = Neighbours(
    ["11", "12", "13"],
    np.array(
        [
            [caption_id(12, 1), caption_id(13, 0), caption_id(12, 0), caption_id(13, 1), caption_id(13, 2)],
            [caption_id(13, 0), caption_id(11, 2), caption_id(11, 0), 999999, NO_CAPTION],
            [NO_CAPTION] * 5,
        ]
    ),
    {},
)


@pytest.fixture
def data(tmp_path: Path) -> SizedData:
    rows = [translation(f"{photo}_0", "de", english, text) for (photo, _), (english, text) in GERMAN.items()]
    return SizedData(
        karpathy=write_karpathy(tmp_path / "dataset_coco.json"),
        translations=[write_rows(tmp_path / "translations.jsonl", rows)],
        languages=["en", "de"],
        features=tmp_path / "features",
        neighbours=tmp_path / "neighbours.arrow",
    )


@pytest.fixture
def prompts(tmp_path: Path) -> PromptBuilder:
    return PromptBuilder(HubTokenizer(xglm(tmp_path), VOCABULARY), load_templates())


def drawn(examples: SizedExamples, count: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    return [examples.draw(rng, 0) for _ in range(count)]


def language_of(example: Example, prompts: PromptBuilder) -> str:
    text = prompts.tokenizer.decode(example.prompt)
    (language,) = [
        code for code in ("en", "de") if text.endswith(prompts.tokenizer.decode(prompts.build(code, [])[1:]))
    ]
    return language


def test_a_prompt_has_the_best_neighbours_that_are_translated(
    data: SizedData, prompts: PromptBuilder
) -> None:
    examples = SizedExamples(read_caption_data(data), NEIGHBOURS, prompts, data)
    expected = {
        # The best four of five; of the German ones those there are; a photo for which nothing was found.
        ("11", "en"): [
            "Goats on a slope.",
            "A lamp lights the empty desk.",
            "Two goats eat thistles.",
            "It's late: a desk with a lamp.",
        ],
        ("11", "de"): ["Eine Katze schläft."],
        ("12", "en"): ["A lamp lights the empty desk.", "Wind lifts a kite.", "A red kite over the dunes."],
        ("12", "de"): ["Katze schläft.", "Eine Katze."],
        ("13", "en"): [],
    }
    seen = set()
    for example in drawn(examples, 300):
        language = language_of(example, prompts)
        seen.add((example.image_id, language))
        assert list(example.prompt) == prompts.build(language, expected[example.image_id, language])
        assert not example.learn_prompt
    assert seen == set(expected)


def test_every_caption_is_learnt_in_its_own_language(data: SizedData, prompts: PromptBuilder) -> None:
    captions = read_caption_data(data)
    examples = SizedExamples(captions, NEIGHBOURS, prompts, data)
    known = {
        (captions.image_ids[captions.photos[row]], language, tuple(prompts.tokenizer.encode([text])[0]))
        for language in captions.languages
        for row in captions.rows(language)
        if (text := captions.text(language, int(row))) is not None
    }
    counted = Counter[str]()
    learnt = set()
    for example in drawn(examples, 600):
        language = language_of(example, prompts)
        counted[language] += 1
        (caption,) = example.captions
        learnt.add((example.image_id, language, tuple(caption)))
    assert learnt == known
    # Uniform over languages, though there are three times as many English captions.
    assert abs(counted["en"] - 300) < 60


def test_captions_are_cut_to_their_tokens_and_prompts_to_k(data: SizedData, prompts: PromptBuilder) -> None:
    short = data.model_copy(update={"max_caption_tokens": 3, "k": 1})
    examples = SizedExamples(read_caption_data(data), NEIGHBOURS, prompts, short)
    for example in drawn(examples, 50):
        assert len(example.captions[0]) <= 3
        language = language_of(example, prompts)
        longest = len(prompts.build_from_ids(language, [[5] * 3]))
        assert len(example.prompt) <= longest


def test_a_full_stop_that_ends_captions_is_not_part_of_them(
    data: SizedData, prompts: PromptBuilder, tmp_path: Path
) -> None:
    captions = read_caption_data(data)
    with_end = PromptBuilder(HubTokenizer(tmp_path, VOCABULARY, end="."), load_templates())
    full_stop = with_end.tokenizer.special.end
    for example in drawn(SizedExamples(captions, NEIGHBOURS, with_end, data), 50):
        assert full_stop not in example.captions[0]
    assert any(
        example.captions[0][-1] == full_stop
        for example in drawn(SizedExamples(captions, NEIGHBOURS, prompts, data), 50)
    )


def test_the_stream_is_the_same_in_every_process_and_from_every_place(
    data: SizedData, prompts: PromptBuilder
) -> None:
    def stream() -> ExampleStream:
        examples = SizedExamples(read_caption_data(data), NEIGHBOURS, prompts, data)
        return ExampleStream(examples.draw, size=8, seed=3, batch_tokens=200)

    one = stream()
    batches = [next(one) for _ in range(12)]
    for rank in range(3):  # process r takes batches r, r + 3, …
        other = stream()
        taken = [next(other) for _ in range(12)][rank::3]
        for mine, his in zip(taken, batches[rank::3], strict=True):
            assert mine.image_ids == his.image_ids
            assert torch.equal(mine.input_ids, his.input_ids)
    one.seek({"pool": 0, "index": 1})
    again = next(one)
    assert torch.equal(again.input_ids, batches[1].input_ids)
    assert len({tuple(batch.input_ids.flatten().tolist()) for batch in batches}) > 8


def test_photos_without_features_or_neighbours_are_left_out_and_counted(
    data: SizedData, prompts: PromptBuilder
) -> None:
    captions = read_caption_data(data)
    examples = SizedExamples(captions, NEIGHBOURS, prompts, data, photos=["11", "13"])
    assert examples.left_out == 1
    assert {example.image_id for example in drawn(examples, 100)} == {"11", "13"}
    some = Neighbours(["12"], NEIGHBOURS.caption_ids[1:2], {})
    assert SizedExamples(captions, some, prompts, data).left_out == 2
    with pytest.raises(InvalidRequestError, match="no caption in de belongs to a photo with features"):
        SizedExamples(captions, NEIGHBOURS, prompts, data, photos=["13"])


def test_a_language_without_a_prompt_is_refused(data: SizedData, prompts: PromptBuilder) -> None:
    english = PromptBuilder(prompts.tokenizer, {"en": load_templates()["en"]})
    with pytest.raises(InvalidRequestError, match="no prompt for de"):
        SizedExamples(read_caption_data(data), NEIGHBOURS, english, data)
