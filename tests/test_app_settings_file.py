import tomllib
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from app.cli import main
from app.errors import InvalidSettingsError
from app.settings import Settings, is_secret, load_settings, resolve_settings
from app.settings_file import format_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "paellera.toml"
    path.write_text('port = 7001\nmax_waiting = 5\nbundle = "elsewhere"\nlog_format = "json"\n', "utf-8")
    return path


def test_flag_beats_environment_beats_file_beats_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAELLERA_MAX_WAITING", "6")
    monkeypatch.setenv("PAELLERA_PORT", "7002")
    monkeypatch.setenv("PAELLERA_LOG_FORMAT", "")  # empty counts as not set
    resolved = resolve_settings({"port": 7003, "host": None}, file)
    settings = resolved.settings
    assert (settings.port, settings.max_waiting, settings.bundle) == (7003, 6, Path("elsewhere"))
    assert (settings.log_format, settings.host) == ("json", "127.0.0.1")
    assert [resolved.origins[name] for name in ("port", "max_waiting", "bundle", "host")] == [
        "--port",
        "PAELLERA_MAX_WAITING",
        str(file),
        "default",
    ]


def test_the_environment_names_the_file_and_a_flag_another(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAELLERA_CONFIG", str(file))
    assert load_settings().port == 7001
    other = tmp_path / "other.toml"
    other.write_text("port = 7009", "utf-8")
    assert load_settings(file=other).port == 7009


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1", "'prot' is not a setting; did you mean port?"),
        ("PAELLERA_PORT = 1", "'PAELLERA_PORT' is not a setting; did you mean port?"),
        ("nonsense = 1", "'nonsense' is not a setting; `paellera serve --print-settings` lists them"),
        ("[serve]\nport = 1", "'serve' is not a setting"),
        ("port = 1\nport = 2", "is not TOML"),
        ("port 8000", "is not TOML"),
        ("port = 70000", "port: input should be less than or equal to 65535, not 70000"),
        ('log_level = "loud"', "log_level: "),
        ("port = {a = 1}", "port: "),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(
    file: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text, "utf-8")
    assert main(["serve", "--config", str(file), "--print-settings"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {file}")
    assert complaint in errors
    assert errors.count("\n") == 1


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingsError, match=r"cannot read the settings file .*missing"):
        load_settings(file=tmp_path / "missing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSettingsError, match="not TOML"):
        load_settings(file=tmp_path / "bytes.toml")
    with pytest.raises(InvalidSettingsError, match="cannot read"):
        load_settings(file=tmp_path)


def test_what_is_printed_is_a_file_with_the_same_settings(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAELLERA_DATASTORE", 'a "quoted" \\ päth\x7f')
    arguments = ["serve", "--config", str(file), "--host", "::1", "--print-settings"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"port = 7001  # {file}\n" in printed
    assert 'host = "::1"  # --host\n' in printed
    assert "  # PAELLERA_DATASTORE\n" in printed
    assert "max_images = 16  # default\n" in printed
    for field in Settings.model_fields.values():
        assert field.description
        assert field.description in printed.replace("\n# ", " ")
    again = tmp_path / "again.toml"
    again.write_text(printed, "utf-8")
    monkeypatch.delenv("PAELLERA_DATASTORE")
    assert load_settings(file=again) == load_settings(
        {"host": "::1", "datastore": Path('a "quoted" \\ päth\x7f')}, file
    )


def test_without_anything_set_what_is_printed_is_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--print-settings"]) == 0
    printed = capsys.readouterr().out
    assert "# bundle is not set (default)\n" in printed
    values = tomllib.loads(printed)
    assert values == {
        name: list(field.default) if isinstance(field.default, tuple) else field.default
        for name, field in Settings.model_fields.items()
        if field.default is not None
    }


class WithSecret(Settings):
    admin_key: SecretStr | None = Field(None, description="who may change the datastore", min_length=8)


def test_secrets_are_neither_printed_nor_repeated_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAELLERA_ADMIN_KEY", "hunter2hunter2")
    resolved = resolve_settings(kind=WithSecret)
    values = resolved.settings.model_dump()
    secret = [name for name in values if is_secret(WithSecret, name)]
    meanings = dict.fromkeys(values, "")
    printed = format_settings(values, resolved.origins, meanings, secret)
    assert "# admin_key is set (PAELLERA_ADMIN_KEY) and secret: not shown\n" in printed
    assert "hunter2" not in printed
    monkeypatch.setenv("PAELLERA_ADMIN_KEY", "hunter2")
    with pytest.raises(InvalidSettingsError, match=r"^PAELLERA_ADMIN_KEY: .*at least 8") as error:
        resolve_settings(kind=WithSecret)
    assert "hunter2" not in str(error.value)
