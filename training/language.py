"""Recipe: the compact multilingual language model, from text alone."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from models.language.tokenizer import Tokenizer
from models.language.xglm import XGLM, XGLMConfig
from models.prompts.builder import PromptBuilder, load_templates
from models.weights import load_weights
from training.attention_guides import AttentionGuide
from training.checkpoint import load_trained
from training.corpus import CaptionCorpus, read_captions
from training.example_stream import ExampleStream
from training.loop import train
from training.loss import linear_cross_entropy
from training.near import read_near
from training.photo_index import read_splits
from training.prompt_examples import PromptExamples, TokenisedCorpus
from training.run_config import RunConfig
from training.sequences import IGNORE, Batch
from training.vocabulary import language_weights, train_vocabulary

VOCABULARY = "vocabulary.model"
_POOL = 2048  # examples drawn at a time


class LanguageData(BaseModel):
    model_config = ConfigDict(extra="forbid")

    captions: Path  # captions of the training photos, all splits
    index: Path  # their images.jsonl: which photos are for training
    text: Path | None = None  # further captions, text only
    near: Path | None = None  # made by `python -m training.near`
    exponent: float = 0.5  # of a language's size, for its share of the examples
    floor: float = 0.05  # least share of a language
    max_captions: PositiveInt = 3  # learnt after one prompt
    substituted_share: float = Field(default=0.0, ge=0, le=1)  # of examples whose shared words are replaced
    vocabulary_sentences: PositiveInt = 300_000  # drawn for the vocabulary


class LanguageShape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    vocab_size: PositiveInt = 12_000
    d_model: PositiveInt = 320
    num_layers: PositiveInt = 6
    num_heads: PositiveInt = 5
    ffn_dim: PositiveInt = 1280
    max_positions: PositiveInt = 512
    dropout: float = 0.0

    def xglm(self) -> XGLMConfig:
        return XGLMConfig(**self.model_dump())


class LanguageRun(RunConfig):
    """`training/configs/language.toml`."""

    data: LanguageData
    shape: LanguageShape = LanguageShape()
    batch_tokens: PositiveInt = 8192  # padded tokens of a step
    guide_weight: float = Field(default=0.0, ge=0)  # of the loss that makes two heads copy


def read_training_text(data: LanguageData) -> CaptionCorpus:
    """All captions a language model may be trained on: never those of development photos."""
    splits = read_splits(data.index)
    rows = (row for row in read_captions(data.captions) if splits.get(row.image_id) == "train")
    return CaptionCorpus(chain(rows, read_captions(data.text)) if data.text else rows)


class LanguageRecipe:
    """Next-token prediction over prompts and the captions after them."""

    def __init__(self, model: XGLM, stream: ExampleStream, guide_weight: float) -> None:
        self.trained = model
        self.stream = stream
        self._guide = AttentionGuide(model) if guide_weight else None
        self._guide_weight = guide_weight

    def loss(self, batch: Batch) -> Tensor:
        hidden = self.trained(batch.input_ids, batch.positions, batch.mask)
        learnt = batch.labels != IGNORE
        labels = batch.labels[learnt]
        loss = linear_cross_entropy(hidden[learnt], self.trained.embed_tokens.weight, labels) / len(labels)
        return loss + self._guide_weight * self._guide.loss(batch) if self._guide else loss


def load_language_model(run: LanguageRun, dropout: float = 0.0) -> XGLM:
    """The trained language model of a run, frozen."""
    model = XGLM(run.shape.model_copy(update={"dropout": dropout}).xglm())
    load_weights(model, load_trained(run), "language model")
    return model.requires_grad_(False)


def load_tokenizer(run: LanguageRun) -> Tokenizer:
    """The vocabulary of a run."""
    return Tokenizer(run.output / VOCABULARY)


def train_language(config: LanguageRun, *, resume: bool) -> None:
    """Train vocabulary and model into `config.output`."""
    config.output.mkdir(parents=True, exist_ok=True)
    corpus = read_training_text(config.data)
    templates = {code: template for code, template in load_templates().items() if code in corpus.texts}
    vocabulary = config.output / VOCABULARY
    if not vocabulary.exists():
        prompts = [part for template in templates.values() for part in (template.opening, template.closing)]
        train_vocabulary(
            corpus,
            prompts,
            vocabulary,
            size=config.shape.vocab_size,
            seed=config.seed,
            exponent=config.data.exponent,
            sentences=config.data.vocabulary_sentences,
        )
    prompts_builder = PromptBuilder(Tokenizer(vocabulary), templates)
    near: Mapping[str, Sequence[str]] = read_near(config.data.near) if config.data.near else {}
    examples = PromptExamples(
        TokenisedCorpus(corpus, prompts_builder.tokenizer.encode),
        prompts_builder,
        near,
        language_weights(corpus, config.data.exponent, config.data.floor),
        config.data.max_captions,
        config.data.substituted_share,
    )
    torch.manual_seed(config.seed)
    model = XGLM(config.shape.xglm())
    stream = ExampleStream(
        lambda rng, _: examples.draw(rng), size=_POOL, seed=config.seed, batch_tokens=config.batch_tokens
    )
    train(LanguageRecipe(model, stream, config.guide_weight), config, resume=resume)
