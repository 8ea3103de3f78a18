import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, noisy, plain, png_that_announces

from app.cli import main
from app.commands.reference import command_line_page
from app.commands.serve import is_loopback, listen
from models.captions import Caption, CaptionResult, CaptionSettings, ImageCaptions
from retrieval.datastore import Neighbour
from retrieval.errors import BundleError

ROOT = Path(__file__).parent.parent
Outcome = tuple[int, str, str]  # exit code, standard output, standard error


class Paellera:
    """Runs the command line in this process, with an echo captioner as the model."""

    def __init__(self, capsys: pytest.CaptureFixture[str], captioner: EchoCaptioner) -> None:
        self.captioner = captioner
        self.loaded: list[tuple[Path | None, Path | None]] = []
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._capsys.readouterr()
        exit_code = main([str(argument) for argument in arguments])
        output, errors = self._capsys.readouterr()
        return exit_code, output, errors

    def load(
        self, bundle: Path | None, datastore: Path | None, precision: str, index_device: str
    ) -> EchoCaptioner:
        self.loaded.append((bundle, datastore))
        return self.captioner


@pytest.fixture
def paellera(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Paellera:
    runner = Paellera(capsys, EchoCaptioner())
    monkeypatch.setattr("app.model.load_model", runner.load)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    return runner


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(plain(), "PNG"))
    return path


@pytest.fixture
def bad_photos(tmp_path: Path) -> list[Path]:
    """One of each kind of file that cannot be captioned."""
    contents = {
        "text.jpg": b"not a picture",
        "empty.png": b"",
        "truncated.jpg": encode(noisy(), "JPEG")[:4000],
        "bomb.png": png_that_announces(40_000, 40_000),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    return [*(tmp_path / name for name in contents), tmp_path / "folder", tmp_path / "missing.jpg"]


def only_line(errors: str) -> str:
    assert errors.endswith("\n")
    assert errors.count("\n") == 1, errors
    assert errors.startswith("error: ")
    return errors.strip()


# --- paellera caption -------------------------------------------------------------------------------------


def test_captions_are_shown_with_their_neighbours(paellera: Paellera, photo: Path) -> None:
    exit_code, output, errors = paellera("caption", photo, "--language", "es", "-l", "ar", "-n", "2")
    assert (exit_code, errors) == (0, "")
    assert f"{photo}  32 × 24 PNG" in output
    for expected in (
        "es  Spanish",
        "ar  Arabic",
        "0.75",
        "imagen 200,40,10",
        "imagen 200,40,10 #1",
        "imagen 3",
    ):
        assert expected in output
    assert "صورة 200,40,10" in output  # in its own order of letters, on one line


def test_json_is_the_reply_of_the_service_with_sources(paellera: Paellera, photo: Path) -> None:
    exit_code, output, errors = paellera("caption", photo, "--language", "pt", "--neighbours", "1", "--json")
    assert (exit_code, errors) == (0, "")
    reply = json.loads(output)
    assert set(reply) == {"id", "model", "datastore", "images", "timings_ms"}
    assert reply["model"] == {"bundle": "echo", "revision": "r1"}
    assert reply["datastore"] == {"version": "v-test"}
    assert reply["images"] == [
        {
            "source": str(photo),
            "width": 32,
            "height": 24,
            "format": "PNG",
            "captions": [
                {
                    "language": "pt",
                    "text": "foto 200,40,10",
                    "confidence": 0.75,
                    "alternatives": [],
                    "neighbours": [{"id": "n0", "text": "foto 0", "language": "pt", "score": 0.9}],
                }
            ],
        }
    ]
    assert set(reply["timings_ms"]) == {"queue", "decode", "encode", "retrieve", "generate"}


def test_options_reach_the_model(paellera: Paellera, photo: Path) -> None:
    sampling = ["--temperature", "0.5", "--top-p", "0.8", "--seed", "3"]
    options = ["--max-tokens", "9", "-k", "2", "--bundle", "b", "--datastore", "d", "--neutral", *sampling]
    assert paellera("caption", photo, *options)[0] == 0
    settings = CaptionSettings(
        ("en",), max_tokens=9, neighbours=2, temperature=0.5, top_p=0.8, seed=3, neutral=True
    )
    assert paellera.captioner.calls == [(1, settings)]
    assert paellera.loaded == [(Path("b"), Path("d"))]


def test_several_photos_are_one_batch_in_order(paellera: Paellera, tmp_path: Path) -> None:
    photos = []
    for shade in range(5):
        photos.append(tmp_path / f"{shade}.png")
        photos[-1].write_bytes(encode(plain((shade, 0, 0)), "PNG"))
    reply = json.loads(paellera("caption", *photos, "--json")[1])
    assert [image["captions"][0]["text"] for image in reply["images"]] == [
        f"picture {i},0,0" for i in range(5)
    ]
    assert [count for count, _ in paellera.captioner.calls] == [5]


def test_many_photos_are_several_batches(paellera: Paellera, photo: Path) -> None:
    reply = json.loads(paellera("caption", *[photo] * 20, "--language", "all", "-n", "8", "--json")[1])
    assert len(reply["images"]) == 20
    assert sum(count for count, _ in paellera.captioner.calls) == 20
    assert max(count for count, _ in paellera.captioner.calls) == 256 // (6 * 8)
    assert len(paellera.loaded) == 1


@pytest.mark.parametrize(
    ("locale", "language"), [(None, "en"), ("es_ES.UTF-8", "es"), ("sv_SE.UTF-8", "en"), ("C", "en")]
)
def test_the_locale_decides_when_no_language_is_named(
    paellera: Paellera, photo: Path, monkeypatch: pytest.MonkeyPatch, locale: str | None, language: str
) -> None:
    if locale:
        monkeypatch.setenv("LC_ALL", locale)
    reply = json.loads(paellera("caption", photo, "--json")[1])
    assert [caption["language"] for caption in reply["images"][0]["captions"]] == [language]


def test_bad_photos_are_reported_and_the_others_go_on(
    paellera: Paellera, photo: Path, bad_photos: list[Path]
) -> None:
    exit_code, output, errors = paellera("caption", *bad_photos, photo)
    assert exit_code == 1
    assert "picture 200,40,10" in output
    lines = errors.splitlines()
    assert len(lines) == len(bad_photos)
    for line, path in zip(lines, bad_photos, strict=True):
        assert line.startswith(f"error: {path}: ")


def test_bad_photos_in_json(paellera: Paellera, photo: Path, bad_photos: list[Path]) -> None:
    exit_code, output, _ = paellera("caption", *bad_photos, photo, "--json")
    assert exit_code == 1
    images = json.loads(output)["images"]
    assert [image.get("error", {}).get("code") for image in images] == [
        "invalid_image",
        "invalid_image",
        "invalid_image",
        "image_too_large",
        "invalid_image",
        "invalid_image",
        None,
    ]
    assert set(images[0]) == {"source", "error"}
    assert images[-1]["captions"][0]["text"] == "picture 200,40,10"


def test_only_bad_photos(paellera: Paellera, bad_photos: list[Path]) -> None:
    for path in bad_photos:
        exit_code, output, errors = paellera("caption", path)
        assert (exit_code, output) == (1, "")
        only_line(errors)
    assert paellera.loaded == []  # nothing to load a model for
    exit_code, output, _ = paellera("caption", bad_photos[0], "--json")
    assert exit_code == 1
    assert len(json.loads(output)["images"]) == 1


def test_addresses_are_not_fetched(paellera: Paellera) -> None:
    assert "download" in only_line(paellera("caption", "https://example.org/cat.jpg")[2])


def test_a_photo_from_standard_input(photo: Path) -> None:
    code = (
        "import sys; import app.model; from app.cli import main; from echo_captioner import EchoCaptioner;"
        "app.model.load_model = lambda *_: EchoCaptioner(); sys.exit(main(['caption', '-', '--json']))"
    )
    done = run_python(code, input=photo.read_bytes())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["source"] == "-"


def test_text_from_files_cannot_drive_the_terminal(
    paellera: Paellera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def caption(images: Sequence[object], settings: CaptionSettings) -> CaptionResult:
        neighbour = Neighbour("n", "[red]\x1b[2J\x07", "pt", 0.5)
        return CaptionResult((ImageCaptions((Caption("en", "[bold]a\x1b[31m", 0.5, (), (neighbour,)),)),))

    monkeypatch.setattr(paellera.captioner, "caption", caption)
    photo = tmp_path / "evil\x1b[2J.png"
    photo.write_bytes(encode(plain(), "PNG"))
    _, output, _ = paellera("caption", photo)
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "[bold]a�[31m" in output
    assert "[pt] [red]�[2J�" in output  # a neighbour in another language says so


def test_names_that_are_not_unicode(paellera: Paellera, tmp_path: Path) -> None:
    photo = tmp_path / os.fsdecode(b"caf\xe9.png")
    photo.write_bytes(encode(plain(), "PNG"))
    exit_code, output, _ = paellera("caption", photo, "--json")
    assert exit_code == 0
    assert json.loads(output)["images"][0]["source"].endswith("caf�.png")
    assert paellera("caption", photo)[0] == 0


# --- bad usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["caption"], "PHOTO"),
        (["caption", "PHOTO", "--language", "klingon"], "language"),
        (["caption", "PHOTO", "--language", "fr"], "ar, de, en, es, pt, zh"),
        (["caption", "PHOTO", "--language", ""], "language"),
        (["caption", "PHOTO", "-n", "0"], "-n"),
        (["caption", "PHOTO", "-n", "many"], "-n"),
        (["caption", "PHOTO", "--beams", "2", "--temperature", "1"], "exclude each other"),
        (["caption", "PHOTO", "--top-p", "0.5"], "temperature"),
        (["caption", "PHOTO", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["capton"], "Did you mean 'caption'? See `paellera --help`"),
        (["serve", "--port", "70000"], "--port"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    paellera: Paellera, photo: Path, arguments: list[str], hint: str
) -> None:
    exit_code, output, errors = paellera(*[str(photo) if word == "PHOTO" else word for word in arguments])
    assert (exit_code, output) == (2, "")
    assert hint in only_line(errors)


def test_no_arguments_show_the_help(paellera: Paellera) -> None:
    exit_code, output, errors = paellera()
    assert (exit_code, output) == (2, "")
    assert errors.startswith("Usage: paellera")


# --- errors and the rest ----------------------------------------------------------------------------------


def failing(error: BaseException) -> object:
    def load(bundle: Path | None, datastore: Path | None, precision: str, index_device: str) -> EchoCaptioner:
        raise error

    return load


def test_a_bundle_that_cannot_be_loaded(
    paellera: Paellera, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.model.load_model", failing(BundleError("no bundle\nat b")))
    exit_code, output, errors = paellera("caption", photo, "--json")
    assert (exit_code, output) == (1, "")
    assert only_line(errors) == "error: no bundle at b"


@pytest.mark.parametrize(
    "error", [RuntimeError("surprise"), PermissionError(13, "Permission denied", "x.bin")]
)
def test_no_error_shows_a_traceback_unless_asked(
    paellera: Paellera, photo: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("app.model.load_model", failing(error))
    exit_code, _, errors = paellera("caption", photo)
    assert exit_code == 1
    assert ("surprise" in only_line(errors)) or ("x.bin: Permission denied" in errors)
    monkeypatch.setenv("PAELLERA_DEBUG", "1")
    with pytest.raises(type(error)):
        paellera("caption", photo)


def test_an_interrupt_is_quiet(paellera: Paellera, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.model.load_model", failing(KeyboardInterrupt()))
    assert paellera("caption", photo) == (130, "", "")


def test_version(paellera: Paellera) -> None:
    exit_code, output, _ = paellera("--version")
    assert exit_code == 0
    assert output.startswith("paellera ")


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from app.cli import main; code = main(['caption', '--help']);"
        "heavy = {'torch', 'transformers', 'uvicorn', 'fastapi'} & set(sys.modules);"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Examples:\n    paellera caption" in done.stdout


def test_options_say_in_a_word_what_they_take() -> None:
    # Without a metavar the help would name a type of Python's, such as <list[Path]>.
    options = re.findall(r"^ +(?:-\w, )?(-[\w-]+) <([\w\[\] ]+)>", command_line_page(), re.MULTILINE)
    assert options == []


def test_the_page_in_docs_is_what_the_program_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == command_line_page(), "run: python -m app.commands.reference > docs/cli.md"


def test_the_end_of_an_answer_is_sent_at_once() -> None:
    # Otherwise it waits up to 40 ms for the client to acknowledge the beginning.
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use(paellera: Paellera) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        exit_code, _, errors = paellera("serve", "--port", str(taken.getsockname()[1]))
    assert exit_code == 1
    assert "cannot listen on 127.0.0.1" in only_line(errors)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("fe80::1%eth0", False),
    ],
)
def test_where_a_service_without_keys_is_warned_of(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_a_keys_file_that_is_missing(
    paellera: Paellera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAELLERA_KEYS_FILE", str(tmp_path / "none.json"))
    exit_code, output, errors = paellera("serve", "--port", "0")
    assert (exit_code, output) == (1, "")
    assert "none.json" in only_line(errors)


def test_serve_answers_and_stops_on_sigterm(photo: Path) -> None:
    code = (
        "import sys; import app.server; from app.cli import main; from echo_captioner import EchoCaptioner;"
        "app.server.load_model = lambda *_: EchoCaptioner(); sys.exit(main(['serve', '--port', '0']))"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment() | {"PAELLERA_DRAIN_SECONDS": "0"},
        stderr=subprocess.PIPE,
    )
    try:
        assert server.stderr is not None
        address = server.stderr.readline().decode().split()[3]
        assert address.startswith("http://127.0.0.1:")
        while b"model_ready" not in server.stderr.readline():
            assert server.poll() is None
        request = urllib.request.Request(
            f"{address}/v1/captions?language=es", photo.read_bytes(), {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            reply = json.load(response)
        assert reply["images"][0]["captions"][0]["text"] == "imagen 200,40,10"
        server.send_signal(signal.SIGTERM)
        assert b"Traceback" not in server.communicate(timeout=120)[1]
        assert server.returncode == 0
    finally:
        server.kill()
        server.communicate()


def test_serve_stops_when_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; import app.server; from app.cli import main; from retrieval.errors import BundleError\n"
        "def load(*_): raise BundleError('no bundle at b')\n"
        "app.server.load_model = load; sys.exit(main(['serve', '--port', '0']))"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"error: no bundle at b"
    assert b"Traceback" not in done.stderr


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "PYTHONWARNINGS": "error"}


def run_python(code: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        input=input,
        capture_output=True,
        timeout=300,
    )
