import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle, default_bundle
from models.captions import CaptionSettings
from models.manifest import MANIFEST, read_manifest
from retrieval.errors import BundleError, DatastoreError, InvalidRequestError, UnknownLanguageError
from retrieval.languages import XM3600_LANGUAGES


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "compact"
    shutil.copytree(default_bundle(), folder)
    return folder


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(document)
    (folder / MANIFEST).write_text(json.dumps(document), encoding="utf-8")


def test_the_shipped_bundle_is_whole_and_small(bundle: Path) -> None:
    assert Bundle.open(bundle).manifest.name == "compact"
    assert sum(file.stat().st_size for file in bundle.rglob("*")) < 40e6


def test_a_changed_byte_is_found_before_anything_is_parsed(bundle: Path) -> None:
    for name in Bundle.open(bundle).manifest.files:
        original = (bundle / name).read_bytes()
        (bundle / name).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(BundleError, match=name):
            Bundle.open(bundle)
        (bundle / name).write_bytes(original)
    Bundle.open(bundle)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "bridge.safetensors").unlink(), "lacks bridge"),
        (lambda folder: (folder / MANIFEST).unlink(), "no bundle at"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not JSON"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "not a manifest"),
        (lambda folder: edit_manifest(folder, lambda d: d.update(format_version=2)), "format_version"),
        (lambda folder: edit_manifest(folder, lambda d: d["language"].update(file="../x")), "language.file"),
        (lambda folder: edit_manifest(folder, lambda d: d.update(extra=1)), "extra"),
        (
            lambda folder: edit_manifest(folder, lambda d: d["files"].pop("bridge.safetensors")),
            "files lacks bridge",
        ),
    ],
)
def test_damage_is_named(bundle: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


def test_parts_that_do_not_fit_together_are_named(bundle: Path) -> None:
    edit_manifest(bundle, lambda d: d["bridge"].update(reduction=4))
    with pytest.raises(BundleError, match="do not fit the bridge"):
        Bundle.open(bundle).load_captioner()
    edit_manifest(bundle, lambda d: d["bridge"].update(reduction=7))
    with pytest.raises(BundleError, match="reduction 7"):
        Bundle.open(bundle).load_captioner()
    edit_manifest(bundle, lambda d: d.update(languages=["en", "xx"]))
    with pytest.raises(BundleError, match="template for xx"):
        Bundle.open(bundle).load_captioner()


def test_a_missing_datastore_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="nowhere"):
        Bundle.open(bundle).load_captioner(tmp_path / "nowhere")


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAELLERA_BUNDLE", str(tmp_path))
    assert default_bundle() == tmp_path


def test_a_bundle_may_write_any_language_of_xm3600(bundle: Path) -> None:
    edit_manifest(bundle, lambda d: d.update(languages=list(XM3600_LANGUAGES)))
    captioner = Bundle.open(bundle).load_captioner()
    settings = CaptionSettings(("iw", "tl-PH", "zh-TW", "Bokmål"), max_tokens=3, beams=1)
    (image,) = captioner.caption([Image.new("RGB", (40, 40))], settings).images
    assert [caption.language for caption in image.captions] == ["he", "fil", "zh", "no"]


def test_a_language_with_a_prompt_that_the_bundle_lacks_is_refused() -> None:
    captioner = Bundle.open(default_bundle()).load_captioner()
    with pytest.raises(
        UnknownLanguageError, match=r"Thai \(th\) is not one of the languages here: ar, cs, de"
    ):
        captioner.caption([Image.new("RGB", (40, 40))], CaptionSettings(("en", "th")))


def test_photos_are_embedded_and_matched_without_what_only_captions_need(bundle: Path) -> None:
    photos = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green")]
    texts = [["A red wall.", "A green wall."], ["A dog."]]
    captioner = Bundle.open(bundle).load_captioner()
    expected = captioner.match(photos, texts)
    shutil.rmtree(bundle / "datastore")
    for name in ("language.safetensors", "bridge.safetensors"):
        (bundle / name).write_bytes(b"no weights")
    opened = Bundle(bundle, read_manifest(bundle))
    assert opened.load_photo_matcher().match(photos, texts) == expected
    embedder = opened.load_photo_embedder()
    assert np.array_equal(embedder.embed_images(photos), captioner.embed_images(photos))
    assert np.array_equal(embedder.embed_texts(texts[0]), captioner.embed_texts(texts[0]))
    assert embedder.embed_images([]).shape == (0, embedder.dimension)
    edit_manifest(bundle, lambda d: d.update(matcher=None))
    with pytest.raises(InvalidRequestError, match="has no matcher"):
        Bundle(bundle, read_manifest(bundle)).load_photo_matcher()
