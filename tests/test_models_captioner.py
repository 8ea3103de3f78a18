"""The shipped bundle, end to end, on photos that come with scikit-image and scikit-learn."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import skimage
import sklearn.datasets
import torch
from PIL import Image

from datastore_build.build import build_datastore
from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from models.neutral.lexicon import load_lexicons
from retrieval.errors import InvalidRequestError, UnknownLanguageError

ALL = ("ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh")
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.datasets.__file__).parent / "images"
NAMED = {  # what must be named in a caption of the photo, by language
    "chelsea.png": {
        "ar": "قط", "cs": "koč|kot", "de": "katze|kätzchen", "en": "cat|kitten", "es": "gat", "fr": "chat",
        "hi": "बिल्ली", "pt": "gat", "uk": "кіт|кот|кішк", "zh": "猫",
    },
    "coffee.png": {
        "ar": "قهوة|كوب|فنجان", "cs": "káv|šál|hrn", "de": "kaffee|tasse", "en": "coffee|cup",
        "es": "café|taza", "fr": "café|tasse", "hi": "कॉफ़ी|कॉफी|कप|प्याल", "pt": "café|xícara",
        "uk": "кав|чашк", "zh": "咖啡|杯",
    },
    "rocket.jpg": {
        "ar": "صاروخ", "cs": "raket", "de": "rakete", "en": "rocket", "es": "cohete", "fr": "fusée",
        "hi": "रॉकेट", "pt": "foguete", "uk": "ракет", "zh": "火箭",
    },
}  # fmt: skip
SCRIPTS = {"ar": "[؀-ۿ]", "hi": "[ऀ-ॿ]", "uk": "[Ѐ-ӿ]", "zh": "[一-鿿]"}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    # fp32: bfloat16 rounds differently for different batch shapes, and two beams may then change places.
    return Bundle.open(default_bundle()).load_captioner(dtype=torch.float32)


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    paths = [*(SKIMAGE / name for name in NAMED), SKLEARN / "flower.jpg", SKLEARN / "china.jpg"]
    return {path.name: Image.open(path).convert("RGB") for path in paths}


def test_cat_coffee_and_rocket_are_named(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    result = captioner.caption([photos[name] for name in NAMED], CaptionSettings(ALL))
    for (name, words), image in zip(NAMED.items(), result.images, strict=True):
        assert [caption.language for caption in image.captions] == list(ALL)
        named = [c.language for c in image.captions if re.search(words[c.language], c.text.lower())]
        assert len(named) >= 8, (name, [c.text for c in image.captions])


def test_captions_are_in_their_script(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    for image in captioner.caption(list(photos.values()), CaptionSettings(ALL)).images:
        for caption in image.captions:
            letters = [c for c in caption.text if c.isalpha()]
            expected = SCRIPTS.get(caption.language, "[A-Za-zÀ-ž]")
            assert letters
            assert all(re.match(expected, c) for c in letters), caption
            assert 0 < caption.confidence <= 1
            assert caption.neighbours


def test_an_image_is_captioned_the_same_alone(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    settings = CaptionSettings(("en", "hi", "zh"))
    together = captioner.caption(list(photos.values()), settings).images
    for photo, image in zip(photos.values(), together, strict=True):
        for language, caption in zip(settings.languages, image.captions, strict=True):
            (alone,) = captioner.caption([photo], CaptionSettings((language,))).images
            assert alone.captions[0].text == caption.text
            for mine, batched in zip(alone.captions[0].neighbours, caption.neighbours, strict=True):
                assert (mine.id, mine.text) == (batched.id, batched.text)
                assert mine.score == pytest.approx(batched.score, abs=1e-5)


def test_photos_of_one_batch_may_have_languages_of_their_own(
    captioner: Captioner, photos: dict[str, Image.Image]
) -> None:
    images = list(photos.values())
    asked = [ALL[number % 4 : number % 4 + 1 + number % 3] for number in range(len(images))]
    together = captioner.caption_each(images, asked, CaptionSettings(()))
    for photo, languages, image in zip(images, asked, together.images, strict=True):
        (alone,) = captioner.caption([photo], CaptionSettings(languages)).images
        assert [caption.language for caption in image.captions] == list(languages)
        assert [caption.text for caption in image.captions] == [caption.text for caption in alone.captions]
        for mine, batched in zip(alone.captions, image.captions, strict=True):
            assert mine.confidence == pytest.approx(batched.confidence, abs=1e-3)
            assert [n.id for n in mine.neighbours] == [n.id for n in batched.neighbours]
    with pytest.raises(InvalidRequestError, match="at least one language"):
        captioner.caption_each(images[:2], [("en",), ()], CaptionSettings(()))


def test_another_datastore_brings_its_own_neighbours(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    source = tmp_path / "mine.jsonl"
    rows = [
        {"id": "mine-1", "texts": {"en": "A striped cat stares at us.", "de": "Eine Katze schaut uns an."}},
        {
            "id": "mine-2",
            "texts": {"en": "A cat's face from very near.", "de": "Ein Katzengesicht von nahem."},
        },
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    bundle = Bundle.open(default_bundle())
    build_datastore([source], tmp_path / "datastore", bundle.load_embedder())
    captioner = bundle.load_captioner(tmp_path / "datastore")
    (image,) = captioner.caption([photos["chelsea.png"]], CaptionSettings(("en", "de", "fr"))).images
    for caption, language in zip(image.captions, ("en", "de", "en"), strict=True):
        assert {neighbour.id for neighbour in caption.neighbours} == {"mine-1", "mine-2"}
        assert {neighbour.language for neighbour in caption.neighbours} == {language}


def test_neighbours_that_fit_badly_are_shown_but_not_read(
    tmp_path: Path, photos: dict[str, Image.Image]
) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text(json.dumps({"texts": {"en": "A castle on a hill."}}) + "\n", encoding="utf-8")
    bundle = Bundle.open(default_bundle())
    build_datastore([source], tmp_path / "datastore", bundle.load_embedder())
    captioner = bundle.load_captioner(tmp_path / "datastore", dtype=torch.float32)
    with_mine, without = (
        captioner.caption([photos["china.jpg"]], CaptionSettings(("en",), neighbours=k)).images[0].captions[0]
        for k in (4, 0)
    )
    (neighbour,) = with_mine.neighbours
    assert bundle.manifest.generation.min_score_new < neighbour.score < bundle.manifest.generation.min_score
    assert with_mine.text == without.text
    assert with_mine.confidence == pytest.approx(without.confidence, abs=1e-5)


def test_confidence_is_the_matchers(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    names = ["china.jpg", "chelsea.png"]
    captions = ["A large building with people in front of it.", "A pink flower.", "A dog runs on the grass."]
    building, cat = captioner.match([photos[name] for name in names], [captions, captions])
    assert max(building) == building[0] > 0
    assert max(map(abs, cat)) < 0.1  # no training photo is like it: nothing is certain
    result = captioner.caption(
        [photos[name] for name in names], CaptionSettings(("en", "zh"), num_captions=2)
    )
    for name, image in zip(names, result.images, strict=True):
        for caption in image.captions:
            texts = [caption.text, *(other.text for other in caption.alternatives)]
            given = [caption.confidence, *(other.confidence for other in caption.alternatives)]
            ((*logits,),) = captioner.match([photos[name]], [texts])
            assert given == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-4)


def test_captions_are_reranked_on_request(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    def write(**wanted: Any) -> list[tuple[str, float]]:
        settings = CaptionSettings(("en",), beams=5, **wanted)
        caption = captioner.caption([photos["china.jpg"]], settings).images[0].captions[0]
        return [
            (caption.text, caption.confidence),
            *((other.text, other.confidence) for other in caption.alternatives),
        ]

    likeliest = write(num_captions=5)
    reranked = write(num_captions=5, rerank=True)
    assert sorted(likeliest) == sorted(reranked)
    steps = [round(confidence, 2) for _, confidence in reranked]
    assert steps == sorted(steps, reverse=True)
    assert write(rerank=True) == reranked[:1]


def test_neighbours_are_the_best_of_more_candidates(
    captioner: Captioner, photos: dict[str, Image.Image]
) -> None:
    defaults = Bundle.open(default_bundle()).manifest.generation
    assert defaults.candidates > defaults.neighbours
    photo = photos["china.jpg"]  # is like the training photos: the matcher has its full weight
    (image,) = captioner.caption([photo], CaptionSettings(("en", "hi"))).images
    (query,) = captioner.embed_images([photo])[:, None]
    for caption in image.captions:
        ((found,),) = captioner.datastore.neighbours(query, [[caption.language]], defaults.candidates)
        (logits,) = captioner.match([photo], [[neighbour.text for neighbour in found]])
        keys = {
            neighbour.id: neighbour.score + defaults.match_weight * logit
            for neighbour, logit in zip(found, logits, strict=True)
        }
        best = sorted(keys, key=keys.__getitem__, reverse=True)[: defaults.neighbours]
        assert [neighbour.id for neighbour in caption.neighbours] == best


def test_no_neighbours_when_none_are_wanted(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    result = captioner.caption([photos["china.jpg"]], CaptionSettings(("en",), neighbours=0))
    assert result.images[0].captions[0].neighbours == ()
    assert result.images[0].captions[0].text


def test_alternatives_follow_the_best(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    settings = CaptionSettings(("en",), num_captions=3)
    caption = captioner.caption([photos["flower.jpg"]], settings).images[0].captions[0]
    texts = [caption.text, *(other.text for other in caption.alternatives)]
    assert len(set(texts)) == 3


def test_tokens_are_those_of_all_captions(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    def write(**wanted: Any) -> tuple[int, int]:
        caption = captioner.caption([photos["flower.jpg"]], CaptionSettings(("en",), **wanted))
        (only,) = caption.images[0].captions
        words = sum(len(text.split()) for text in (only.text, *(other.text for other in only.alternatives)))
        return only.tokens, words

    tokens, words = write()
    assert words <= tokens <= 5 * words  # a word is one piece or a few
    assert write(max_tokens=3, beams=1)[0] == 3
    assert write(num_captions=3)[0] > tokens


def test_sampling_follows_its_seed(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    def sample(seed: int) -> str:
        settings = CaptionSettings(("en",), temperature=1.5, top_p=1.0, seed=seed)
        return captioner.caption([photos["china.jpg"]], settings).images[0].captions[0].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) > 1


def test_a_language_is_found_by_its_tag(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    (image,) = captioner.caption([photos["coffee.png"]], CaptionSettings(("pt-BR",))).images
    assert image.captions[0].language == "pt"
    with pytest.raises(UnknownLanguageError, match="tlh"):
        captioner.caption([photos["coffee.png"]], CaptionSettings(("tlh",)))


@pytest.mark.parametrize(
    "wrong",
    [
        CaptionSettings(()),
        CaptionSettings(("en",), max_tokens=0),
        CaptionSettings(("en",), max_tokens=600),
        CaptionSettings(("en",), neighbours=-1),
        CaptionSettings(("en",), temperature=0.0),
        CaptionSettings(("en",), temperature=1.0, top_p=0.0),
    ],
)
def test_settings_out_of_range_are_refused(
    wrong: CaptionSettings, captioner: Captioner, photos: dict[str, Image.Image]
) -> None:
    with pytest.raises(InvalidRequestError):
        captioner.caption([photos["coffee.png"]], wrong)


def test_queries_are_unit_vectors(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    vectors = captioner.embed_images(list(photos.values()))
    assert vectors.shape[0] == len(photos)
    assert (abs((vectors**2).sum(axis=1) - 1) < 1e-4).all()


def test_captions_of_a_given_length(captioner: Captioner, photos: dict[str, Image.Image]) -> None:
    languages = ("ar", "en", "hi", "zh")
    pictures = [photos["chelsea.png"], photos["rocket.jpg"]]
    free = captioner.caption(pictures, CaptionSettings(languages, num_captions=3)).images
    for most in (12, 30, 1000):
        settings = CaptionSettings(languages, num_captions=2, max_length=most, explain=True)
        for image, unbounded in zip(captioner.caption(pictures, settings).images, free, strict=True):
            for caption, whole in zip(image.captions, unbounded.captions, strict=True):
                found = [whole.text, *(other.text for other in whole.alternatives)]  # as wide a search
                shown = [caption.text, *(other.text for other in caption.alternatives)]
                assert all(0 < len(text) <= most for text in shown)
                fitting = [text for text in found if len(text) <= most]
                assert shown[: len(fitting)] == fitting[: len(shown)]
                assert all(any(text.startswith(begun) for text in found) for begun in shown)
                separator = "" if caption.language == "zh" else " "
                assert separator.join(word.text for word in caption.attention) == caption.text
    with pytest.raises(InvalidRequestError, match="max_length"):
        captioner.caption(pictures, CaptionSettings(("en",), max_length=0))


def test_tokens_are_counted_and_texts_embedded(captioner: Captioner) -> None:
    assert captioner.count_tokens([""]) == [0]
    (few, many) = captioner.count_tokens(["a cat", "a cat on a chair in the garden"])
    assert 2 <= few < many
    assert (
        getattr(captioner.count_tokens, "__self__", None) is not captioner
    )  # which may be dropped from memory
    vectors = captioner.embed_texts(["a cat on a chair"])
    (nearest,) = captioner.datastore.neighbours(vectors, [["en"]], 1)[0][0]
    assert "cat" in nearest.text


def test_neutral_captions_hold_no_gendered_word(captioner: Captioner) -> None:
    people = [Image.open(SKIMAGE / name).convert("RGB") for name in ("astronaut.png", "camera.png")]
    people.append(people[0].rotate(10))
    lexicons = load_lexicons()

    def write(photos: list[Image.Image], **wanted: Any) -> list[tuple[str, str]]:
        result = captioner.caption(photos, CaptionSettings(ALL, **wanted))
        return [(caption.language, caption.text) for image in result.images for caption in image.captions]

    plain, neutral = write(people), write(people, neutral=True)
    assert sum(bool(lexicons[language].gendered_in(text)) for language, text in plain) >= 15
    assert [text for language, text in neutral if lexicons[language].gendered_in(text)] == []
    assert sum(bool(lexicons[language].people_in(text)) for language, text in neutral) >= 15
    alone = [pair for photo in people for pair in write([photo], neutral=True)]
    assert alone == neutral
    sampled = write(people[:1], neutral=True, temperature=1.0, num_captions=2)
    assert [text for language, text in sampled if lexicons[language].gendered_in(text)] == []


def test_neutral_is_refused_where_there_are_no_words(photos: dict[str, Image.Image], tmp_path: Path) -> None:
    shutil.copytree(default_bundle(), tmp_path / "bundle")
    manifest = tmp_path / "bundle" / "bundle.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**document, "languages": ["en", "th"]}), encoding="utf-8")
    captioner = Bundle.open(tmp_path / "bundle").load_captioner()
    with pytest.raises(InvalidRequestError, match="no words yet for Thai: there are some for ar, cs"):
        captioner.caption([photos["china.jpg"]], CaptionSettings(("en", "th"), neutral=True))
