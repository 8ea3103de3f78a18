import pytest

from app.access.client_address import ClientAddresses


def identity(peer: str | None, forwarded: list[str], trusted: tuple[str, ...] = ()) -> str:
    scope = {
        "type": "http",
        "client": None if peer is None else (peer, 1234),
        "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded],
    }
    return ClientAddresses(trusted).identity(scope)


def test_by_default_nobody_is_believed() -> None:
    assert identity("198.51.100.7", ["203.0.113.9"]) == "198.51.100.7"
    assert identity("127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # the caller wrote 1.2.3.4
        (["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.0.0.2"], "203.0.113.9"),  # through two of our proxies
        (["10.0.0.9, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (["203.0.113.9:5000"], "203.0.113.9"),
        (["[2001:db8:1:2:3::4]:5000"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["nonsense"], "10.0.0.1"),
        (["203.0.113.9, nonsense"], "10.0.0.1"),
        (["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
    ],
)
def test_a_trusted_proxy_is_believed_from_the_right(forwarded: list[str], client: str) -> None:
    assert identity("10.0.0.1", forwarded, ("10.0.0.0/24",)) == client


def test_a_peer_that_is_no_trusted_proxy_is_not_believed() -> None:
    assert identity("203.0.113.1", ["10.0.0.5"], ("10.0.0.0/24",)) == "203.0.113.1"


def test_one_customer_of_ipv6_is_one_client() -> None:
    assert identity("2001:db8:1:2::1", []) == identity("2001:db8:1:2:ffff::1", []) == "2001:db8:1:2::/64"
    assert identity("2001:db8:1:3::1", []) != identity("2001:db8:1:2::1", [])
    assert identity("::ffff:198.51.100.7", []) == "198.51.100.7"


def test_a_peer_without_an_address() -> None:
    assert identity(None, ["203.0.113.9"], ("0.0.0.0/0", "::/0")) == "unknown"
