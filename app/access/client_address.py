"""Whose request it is, by address: the peer's, or the one that a trusted proxy reports.

X-Forwarded-For can be written by anybody, so it counts only where the operator has named the proxies, and
only from the right: what the last trusted proxy has appended, never what the caller has put before it.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

Address = IPv4Address | IPv6Address
_UNKNOWN = "unknown"  # a Unix socket has no address


class ClientAddresses:
    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(network) for network in trusted_proxies]

    def identity(self, scope: Scope) -> str:
        """What requests are counted by: an IPv4 address, or the /64 of IPv6 that one customer has whole."""
        address = self._address(scope)
        if address is None:
            return _UNKNOWN
        if isinstance(address, IPv6Address):
            return str(ip_network((address, 64), strict=False))
        return str(address)

    def _address(self, scope: Scope) -> Address | None:
        peer = _parse((scope.get("client") or ("",))[0])
        if peer is None or not self._trusts(peer):
            return peer
        hops = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
        client = peer
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:  # beyond this point nothing is known
                break
            client = address
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parse(text: str) -> Address | None:
    """An address, perhaps with a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:  # a socket for both families
        return address.ipv4_mapped
    return address
