from pathlib import Path

import pytest

from app.errors import InvalidSettingsError
from app.settings import Settings, load_settings


def test_flags_beat_the_environment_which_beats_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().port == 8000
    monkeypatch.setenv("PAELLERA_PORT", "9000")
    monkeypatch.setenv("PAELLERA_DATASTORE", "captions")
    monkeypatch.setenv("PAELLERA_HOST", "")
    settings = load_settings({"port": None, "bundle": Path("b")})
    assert (settings.port, settings.datastore, settings.bundle) == (9000, Path("captions"), Path("b"))
    assert settings.host == "127.0.0.1"
    assert load_settings({"port": 7000}).port == 7000


def test_image_limits_follow_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAELLERA_MAX_IMAGE_PIXELS", "1000")
    assert load_settings().image_limits.max_pixels == 1000


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().url_hosts == ()
    monkeypatch.setenv("PAELLERA_URL_HOSTS", "Images.example.org, *.cdn.example.net,")
    monkeypatch.setenv("PAELLERA_TRUSTED_PROXIES", "10.0.0.0/8")
    assert load_settings().url_hosts == ("images.example.org", "*.cdn.example.net")
    assert load_settings().trusted_proxies == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("URL_HOSTS", "https://images.example.org", "host name"),
        ("URL_HOSTS", "*", "host name"),
        ("TRUSTED_PROXIES", "proxy.example.org", "proxy.example.org"),
        ("CORS_ORIGINS", "*", "not an origin"),
        ("ADDRESS_PER_MINUTE", "0", "greater than or equal to 1"),
    ],
)
def test_bad_lists_and_limits(monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str) -> None:
    monkeypatch.setenv(f"PAELLERA_{name}", value)
    with pytest.raises(InvalidSettingsError, match=rf"^PAELLERA_{name}: .*{hint}"):
        load_settings()


def test_a_password_in_a_setting_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAELLERA_LIMITS_STORAGE", "redis://:hunter2@127.0.0.1/0")
    assert "hunter2" not in repr(load_settings()) + str(load_settings().model_dump())


def test_a_bad_setting_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettingsError, match=r"^--port: .*65535"):
        load_settings({"port": 70_000})
    monkeypatch.setenv("PAELLERA_MAX_WAITING", "lots")
    with pytest.raises(InvalidSettingsError, match=r"^PAELLERA_MAX_WAITING: .*integer.*lots"):
        load_settings()


def test_the_documentation_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `PAELLERA_")]
    documented = {name.strip(" `"): default.strip(" `") for name, default in rows}
    for name, field in Settings.model_fields.items():
        default = documented.pop(f"PAELLERA_{name.upper()}")
        assert field.default in (None, ()) or default == str(field.default)
    assert not documented
