"""The shipped captioner on another version of its datastore."""

import json
import shutil
from pathlib import Path

import pytest
import skimage
from PIL import Image
from starlette.testclient import TestClient

from app.access.keys import new_key, write_keys
from app.server import create_app
from app.settings import Settings
from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from retrieval.errors import DatastoreError
from retrieval.manifest import live_version

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
SECOND = "20991231T000000.000Z-0123456789ab"


@pytest.fixture(scope="module")
def datastore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's own, with a second version that has the same captions."""
    folder = tmp_path_factory.mktemp("swap") / "datastore"
    shutil.copytree(default_bundle() / "datastore", folder)
    second = folder / "versions" / SECOND
    shutil.copytree(live_version(folder), second)
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps(manifest | {"version": SECOND}))
    return folder


@pytest.fixture(scope="module")
def captioner(datastore: Path) -> Captioner:
    return Bundle.open(default_bundle()).load_captioner(datastore)


def test_all_parts_but_the_datastore_are_shared(captioner: Captioner) -> None:
    other = captioner.on_version(SECOND)
    assert other.datastore.version == SECOND != captioner.datastore.version
    before, after = vars(captioner), vars(other)
    assert [name for name in before if before[name] is not after[name]] == ["datastore"]


def test_with_the_same_captions_it_says_the_same(captioner: Captioner) -> None:
    photo, settings = Image.open(CAT), CaptionSettings(languages=("en", "es"))
    assert (
        captioner.on_version(SECOND).caption([photo], settings).images
        == captioner.caption([photo], settings).images
    )


def test_what_is_not_there_is_refused(captioner: Captioner, datastore: Path) -> None:
    with pytest.raises(DatastoreError, match="there is no version 'none'"):
        captioner.on_version("none")
    single = Bundle.open(default_bundle()).load_captioner(live_version(datastore))
    with pytest.raises(DatastoreError, match="is a single version"):
        single.on_version(SECOND)


def test_over_http(captioner: Captioner, datastore: Path, tmp_path: Path) -> None:
    token, key = new_key("boss", admin=True)
    write_keys(tmp_path / "keys.json", [key])
    settings = Settings(keys_file=tmp_path / "keys.json", cache_bytes=0, datastore_poll_seconds=0)
    app = create_app(lambda: captioner, settings, wait_for_model=True)
    with TestClient(app, headers={"X-API-Key": token}) as client:
        first = client.post("/v1/captions", files={"image": CAT.read_bytes()})
        swapped = client.post("/v1/datastore/activate", json={"version": SECOND})
        second = client.post("/v1/captions", files={"image": CAT.read_bytes()})
    assert swapped.json() == {"previous": captioner.datastore.version, "version": SECOND}
    assert first.headers["x-paellera-datastore"] == captioner.datastore.version
    assert second.headers["x-paellera-datastore"] == SECOND
    assert first.json()["images"] == second.json()["images"]
