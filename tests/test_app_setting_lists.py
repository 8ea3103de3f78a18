import pytest

from app.setting_lists import check_networks, check_origins


def test_networks_are_checked() -> None:
    assert check_networks(["10.0.0.1", "10.0.0.0/8", "fd00::/8"])
    for bad in ("10.0.0.1/8", "proxy.example.org", "*"):
        with pytest.raises(ValueError, match=r"network|appear|host bits"):
            check_networks([bad])


def test_origins_as_browsers_send_them() -> None:
    assert check_origins(["https://page.example.org", "http://localhost:3000", "http://[::1]:3000"])


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*.example.org",
        "page.example.org",
        "https://page.example.org/",
        "https://",
        "null",
        "https://Page.example.org",
        "https://u@page.example.org",
        "ftp://x.example",
    ],
)
def test_a_list_names_origins_only(origin: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        check_origins([origin])
