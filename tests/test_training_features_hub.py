"""Features of encoders in the Hub's format: theirs alone, of a Karpathy file's photos, after any kill."""

import json
from pathlib import Path

import pytest
import torch
from coco_files import karpathy_document, write_karpathy, write_photos
from hub_cache import add_to_cache, use_cache
from hub_towers import save_clip, save_siglip, save_siglip2
from killed_training_data import FEATURE_MOMENTS, extract, kill_runs
from PIL import Image, ImageOps

from models.vision.hub import load_hub_vision
from retrieval.errors import InvalidRequestError
from training.features import FeatureCache, main
from training.photo_encoders import hub_encoder_id

TRAINING_PHOTOS = ["11", "12", "13"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    save_clip(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write_photos(tmp_path / "images")
    write_karpathy(tmp_path / "dataset_coco.json")
    return tmp_path


def arguments(coco: Path, vision: str, *more: str) -> list[str]:
    given = {"images": coco / "images", "karpathy": coco / "dataset_coco.json", "output": coco / "features"}
    return [*(f"--{name}={value}" for name, value in given.items()), f"--vision={vision}", *more]


def photo(coco: Path, image_id: str) -> Image.Image:
    with Image.open(coco / "images" / "val2014" / f"COCO_val2014_{int(image_id):012d}.png") as image:
        return image.convert("RGB")


def test_the_command_stores_what_the_hubs_encoder_gives(coco: Path, clip: Path) -> None:
    assert main(arguments(coco, str(clip))) == 0
    assert main(arguments(coco, str(clip), "--mirror", "--batch-size=2")) == 0
    cache = FeatureCache(coco / "features", hub_encoder_id(clip))
    assert cache.image_ids() == TRAINING_PHOTOS  # none of the split val
    for mirror in (False, True):
        photos = [photo(coco, image_id) for image_id in TRAINING_PHOTOS]
        expected = load_hub_vision(clip).encode([ImageOps.mirror(p) for p in photos] if mirror else photos)
        tokens = cache.tokens(TRAINING_PHOTOS, mirror=mirror)
        assert tokens.shape == (3, 5, 32)
        torch.testing.assert_close(tokens, expected.tokens.bfloat16(), atol=0.02, rtol=0.02)
        torch.testing.assert_close(
            cache.pooled(TRAINING_PHOTOS, mirror=mirror), expected.pooled, atol=1e-4, rtol=1e-4
        )
    with pytest.raises(InvalidRequestError, match="have no 'class_logits'"):
        cache.class_logits(TRAINING_PHOTOS)


def test_photos_with_different_numbers_of_tokens_keep_which_are_padding(coco: Path, clip: Path) -> None:
    Image.new("RGB", (40, 40)).save(next((coco / "images" / "val2014").glob("*11.png")))  # unlike the others
    save_siglip2(coco / "siglip2")
    assert main(arguments(coco, str(coco / "siglip2"), "--batch-size=2")) == 0
    cache = FeatureCache(coco / "features", hub_encoder_id(coco / "siglip2"))
    encoded = load_hub_vision(coco / "siglip2").encode([photo(coco, name) for name in TRAINING_PHOTOS])
    mask = cache.mask(TRAINING_PHOTOS)
    assert mask is not None
    assert encoded.mask is not None
    assert torch.equal(mask, encoded.mask)
    assert len(set(mask.sum(dim=1).tolist())) > 1
    assert main(arguments(coco, str(clip), f"--output={coco / 'clip-features'}")) == 0
    assert FeatureCache(coco / "clip-features", hub_encoder_id(clip)).mask(TRAINING_PHOTOS) is None


def test_photos_may_lie_side_by_side(coco: Path, clip: Path) -> None:
    for path in (coco / "images" / "val2014").iterdir():
        path.rename(coco / "images" / path.name)
    assert main(arguments(coco, str(clip))) == 0


def test_a_repository_in_the_cache_is_named_like_its_folder(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_cache(monkeypatch, tmp_path / "hub")
    add_to_cache(tmp_path / "hub", "somebody/clip", save_clip)
    save_clip(tmp_path / "clip")
    assert main(arguments(coco, "somebody/clip")) == 0
    encoder = hub_encoder_id(tmp_path / "clip")
    assert f"encoder: {encoder}" in capsys.readouterr().err
    assert FeatureCache(coco / "features", encoder).image_ids() == TRAINING_PHOTOS
    assert main(arguments(coco, "somebody/else", "--revision=v2")) == 1
    assert "somebody/else@v2 is not in the cache" in capsys.readouterr().err


def test_pooled_vectors_alone_take_less_space(
    coco: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(coco, str(clip), "--pooled-only")) == 0
    cache = FeatureCache(coco / "features", hub_encoder_id(clip))
    assert cache.pooled(["12"]).shape == (1, 24)
    with pytest.raises(InvalidRequestError, match="have no 'tokens'"):
        cache.tokens(["12"])
    assert main(arguments(coco, str(clip))) == 1
    assert "has pooled of each photo, not tokens, pooled: choose another folder" in capsys.readouterr().err


def test_features_of_another_encoder_are_neither_read_nor_overwritten(
    coco: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(coco, str(clip))) == 0
    with pytest.raises(InvalidRequestError, match=rf"they are of {hub_encoder_id(clip)}"):
        FeatureCache(coco / "features")
    save_siglip(tmp_path / "siglip")
    before = {path.name: path.read_bytes() for path in (coco / "features").iterdir()}
    assert main(arguments(coco, str(tmp_path / "siglip"))) == 1
    assert "choose another folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (coco / "features").iterdir()} == before


def test_other_weights_or_preparation_make_another_id(clip: Path) -> None:
    ids = [hub_encoder_id(clip)]
    (clip / "tokenizer.json").write_text("{}")
    assert hub_encoder_id(clip) == ids[0]  # the image side knows nothing of it
    for name in ("preprocessor_config.json", "model.safetensors", "config.json"):
        (clip / name).write_bytes((clip / name).read_bytes() + b" ")
        ids.append(hub_encoder_id(clip))
    assert len(set(ids)) == 4
    assert all(encoder_id.startswith("clip-") for encoder_id in ids)


def test_an_index_of_the_first_version_still_opens_and_goes_on(coco: Path, clip: Path) -> None:
    command = arguments(coco, str(clip))
    assert main(command) == 0
    index = coco / "features" / "plain.json"
    document = json.loads(index.read_text())
    del document["tensors"]
    index.write_text(json.dumps(document))
    assert FeatureCache(coco / "features", hub_encoder_id(clip)).tokens(["11"]).shape == (1, 5, 32)
    shard = next((coco / "features").glob("*.safetensors"))
    written = shard.stat().st_mtime_ns
    assert main(command) == 0
    assert shard.stat().st_mtime_ns == written


def test_a_run_killed_at_any_moment_goes_on_to_the_same_folder(coco: Path, clip: Path) -> None:
    scenes = {number: ("train", [f"Pebbles, heap {number}."]) for number in range(100, 110)}
    write_karpathy(coco / "dataset_coco.json", karpathy_document(scenes))
    write_photos(coco / "images", scenes)
    kill_runs(clip, coco, coco / "features", FEATURE_MOMENTS)

    assert extract(clip, coco, coco / "at-once") == 10
    whole = {path.name: path.read_bytes() for path in (coco / "at-once").iterdir()}
    encoded = {}
    for moment in FEATURE_MOMENTS:
        encoded[moment] = extract(clip, coco, coco / moment)
        assert {path.name: path.read_bytes() for path in (coco / moment).iterdir()} == whole, moment
    # What was noted is not encoded again: 4 photos of the first shard, 8 of two.
    assert encoded == {moment: 2 if moment == "shard-noted" else 6 for moment in FEATURE_MOMENTS}
