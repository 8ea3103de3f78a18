"""Train the SentencePiece vocabulary of the compact language model."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece

from models.language.tokenizer import BOS, EOS, PAD, SEPARATOR, UNK
from retrieval.files import replacing
from training.corpus import CaptionCorpus


def language_weights(corpus: CaptionCorpus, exponent: float, floor: float = 0.0) -> dict[str, float]:
    """Probability of drawing each language: its number of captions to the power `exponent`, at least `floor`.

    An exponent under 1 lets small languages be seen more often than their share (XLM, Lample and Conneau
    2019, section 3.1).
    """
    sizes = {language: sum(map(len, corpus.texts[language].values())) for language in corpus.languages}
    powers = {language: size**exponent for language, size in sizes.items()}
    weights = {language: max(power / sum(powers.values()), floor) for language, power in powers.items()}
    return {language: weight / sum(weights.values()) for language, weight in weights.items()}


def _sample(
    corpus: CaptionCorpus, prompts: Sequence[str], count: int, exponent: float, rng: random.Random
) -> Iterator[str]:
    weights = language_weights(corpus, exponent)
    pools = {
        language: [text for captions in photos.values() for text in captions]
        for language, photos in corpus.texts.items()
    }
    languages = list(weights)
    for language in rng.choices(languages, [weights[name] for name in languages], k=count):
        yield rng.choice(pools[language])
    for prompt in prompts:  # often enough that their words become single pieces: they open every sequence
        yield from [prompt] * (count // 200)


def train_vocabulary(
    corpus: CaptionCorpus,
    prompts: Sequence[str],
    output: Path,
    *,
    size: int,
    seed: int,
    exponent: float,
    sentences: int,
) -> None:
    """Write a unigram SentencePiece model with byte fallback to `output`, trained on captions and prompts."""
    rng = random.Random(seed)
    with replacing(output) as temporary, temporary.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sample(corpus, prompts, sentences, exponent, rng),
            model_writer=writer,
            vocab_size=size,
            model_type="unigram",
            character_coverage=0.9999,
            byte_fallback=True,
            # NFKC would turn full-width Chinese punctuation into ASCII; the tokenizer applies NFC itself.
            normalization_rule_name="identity",
            split_digits=True,
            bos_id=BOS,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            user_defined_symbols=[SEPARATOR],
            minloglevel=1,
        )
