"""Features on disk are the encoder's own, survive a killed run, and are found by image id."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.vision.efficientnet_lite import load_efficientnet_lite2
from models.vision.features import VisionFeatures
from models.vision.preprocess import preprocess
from retrieval.errors import InvalidImageError, InvalidRequestError
from training.feature_cache import COMPACT_ENCODER, FeatureCache
from training.features import extract, main
from training.photo_index import Photo, read_photos


class MeanColour:
    """A tiny deterministic encoder that counts the photos it was given; left and right halves differ."""

    id = COMPACT_ENCODER
    classifies = True
    variable = False

    def __init__(self) -> None:
        self.seen = 0

    def encode(self, images: Sequence[Image.Image], *, mirror: bool) -> VisionFeatures:
        self.seen += len(images)
        pixels = preprocess(images)
        pixels = pixels.flip(3) if mirror else pixels
        tokens = torch.stack([half.mean(dim=(2, 3)) for half in pixels.chunk(2, dim=3)], dim=1)  # (B, 2, 3)
        return VisionFeatures(tokens, tokens.mean(dim=1), tokens[:, 0])


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Five random photos under tmp_path/images and their index in tmp_path/images.jsonl."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    photos = [Photo(f"photo-{n}", f"images/{n}.png", "train") for n in range(5)]
    for photo in photos:
        pixels = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / photo.file)
    lines = [json.dumps({"image_id": p.image_id, "file": p.file, "split": p.split}) for p in photos]
    (tmp_path / "images.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return photos


def test_the_command_stores_what_the_encoder_gives(tmp_path: Path, photos: list[Photo]) -> None:
    output = tmp_path / "features"
    arguments = [
        "--images",
        str(tmp_path),
        "--index",
        str(tmp_path / "images.jsonl"),
        "--output",
        str(output),
    ]
    assert main(arguments) == 0
    assert main([*arguments, "--mirror"]) == 0
    cache = FeatureCache(output)
    pixels = preprocess([Image.open(tmp_path / photo.file) for photo in photos])
    ids = [photo.image_id for photo in photos]
    for mirror, seen in ((False, pixels), (True, pixels.flip(3))):
        expected = load_efficientnet_lite2()(seen)
        torch.testing.assert_close(cache.tokens(ids, mirror=mirror), expected.tokens.bfloat16())
        torch.testing.assert_close(cache.pooled(ids, mirror=mirror), expected.pooled)
        torch.testing.assert_close(cache.class_logits(ids, mirror=mirror), expected.class_logits)
    assert cache.tokens(ids).shape == (5, 81, 1280)
    assert cache.tokens(ids).dtype == torch.bfloat16


def test_lookup_by_id_across_shards_in_any_order(tmp_path: Path, photos: list[Photo]) -> None:
    extract(photos, tmp_path, tmp_path / "out", MeanColour(), shard_size=2, batch_size=1)
    cache = FeatureCache(tmp_path / "out")
    assert cache.image_ids() == [photo.image_id for photo in photos]
    ids = ["photo-4", "photo-0", "photo-3", "photo-0"]
    singles = [cache.pooled([image_id]) for image_id in ids]
    assert torch.equal(cache.pooled(ids), torch.cat(singles))
    with Image.open(tmp_path / photos[4].file) as image:
        torch.testing.assert_close(
            cache.pooled(["photo-4"]), MeanColour().encode([image], mirror=False).pooled
        )
    assert cache.tokens([]).shape == (0, 2, 3)


def test_mirrored_copies_stand_beside_the_plain_ones(tmp_path: Path, photos: list[Photo]) -> None:
    output = tmp_path / "out"
    extract(photos, tmp_path, output, MeanColour())
    with pytest.raises(InvalidRequestError, match="--mirror"):
        FeatureCache(output).tokens(["photo-1"], mirror=True)
    extract(photos, tmp_path, output, MeanColour(), mirror=True)
    cache = FeatureCache(output)
    assert cache.image_ids(mirror=True) == cache.image_ids()
    plain, mirrored = cache.tokens(["photo-1"]), cache.tokens(["photo-1"], mirror=True)
    torch.testing.assert_close(mirrored, plain.flip(1))  # left and right have changed places
    assert not torch.equal(mirrored, plain)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path, photos: list[Photo]) -> None:
    output = tmp_path / "out"
    broken = tmp_path / photos[3].file
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    with pytest.raises(InvalidImageError, match=r"3\.png"):
        extract(photos, tmp_path, output, MeanColour(), shard_size=2)
    assert FeatureCache(output).image_ids() == ["photo-0", "photo-1"]

    broken.write_bytes(whole)
    encoder = MeanColour()
    assert extract(photos, tmp_path, output, encoder, shard_size=2) == 3
    assert encoder.seen == 3
    extract(photos, tmp_path, tmp_path / "at-once", MeanColour(), shard_size=2)
    for name in [f"plain-{number:05d}.safetensors" for number in range(3)]:
        assert (output / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes()

    assert extract(photos, tmp_path, output, encoder, shard_size=2) == 0
    assert not list(output.glob("*.partial"))


def test_shards_of_other_photos_or_lost_shards_are_made_anew(tmp_path: Path, photos: list[Photo]) -> None:
    output = tmp_path / "out"
    extract(photos, tmp_path, output, MeanColour(), shard_size=2)
    (output / "plain-00000.safetensors").unlink()
    assert extract(photos, tmp_path, output, MeanColour(), shard_size=2) == 2
    changed = [*photos[:2], photos[4]]
    assert extract(changed, tmp_path, output, MeanColour(), shard_size=2) == 1
    assert FeatureCache(output).image_ids() == [photo.image_id for photo in changed]


def test_a_damaged_shard_is_named(tmp_path: Path, photos: list[Photo]) -> None:
    extract(photos, tmp_path, tmp_path / "out", MeanColour(), shard_size=2)
    shard = tmp_path / "out" / "plain-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InvalidRequestError, match=r"plain-00001\.safetensors"):
        FeatureCache(tmp_path / "out")


def test_an_unknown_id_is_named(tmp_path: Path, photos: list[Photo]) -> None:
    extract(photos, tmp_path, tmp_path / "out", MeanColour())
    with pytest.raises(InvalidRequestError, match="photo-99"):
        FeatureCache(tmp_path / "out").tokens(["photo-0", "photo-99"])


def test_a_folder_without_features_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"python -m training\.features"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image_id": "a", "file": "a.jpg", "split": "dev"}\nnot json', ":2:"),
        ('{"image_id": "a", "split": "dev"}', ":1:"),
        ("[1]", ":1:"),
        (
            '{"image_id": "a", "file": "a", "split": "dev"}\n{"image_id": "a", "file": "b", "split": "dev"}',
            "twice",
        ),
    ],
)
def test_a_bad_photo_index_is_refused(tmp_path: Path, text: str, message: str) -> None:
    index = tmp_path / "images.jsonl"
    index.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=message):
        read_photos(index)


def test_the_command_fails_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.jsonl")
    assert main(["--images", str(tmp_path), "--index", missing, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read the photo index")
    assert error.count("\n") == 1
