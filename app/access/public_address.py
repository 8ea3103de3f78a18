"""Is an IP address one of the public internet? What is not could be a machine behind the operator's firewall.

`ipaddress.is_global` alone is not the answer: it says yes to multicast, to `::192.168.0.1` and to deprecated
site-local networks, and depending on Python's version to addresses of IPv6 that carry a private one of IPv4
and to all of 192.0.0.0/24, where one cloud keeps its credentials.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_PUBLIC_V4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))  # protocols; 6to4 relays
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052; networks with IPv6 only reach all of IPv4 through it
_NOT_PUBLIC_V6 = (
    IPv6Network("2001::/23"),  # protocols; among them Teredo, which leads to an IPv4 address
    IPv6Network("2002::/16"),  # 6to4, which does, too
    IPv6Network("3fff::/20"),  # documentation
)


def is_public(address: str) -> bool:
    """True for global unicast only; false for what is no address, or has a zone (`fe80::1%eth0`)."""
    if "%" in address:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    if parsed.ipv4_mapped is not None:
        return _is_public_v4(parsed.ipv4_mapped)
    if parsed in _NAT64:
        return _is_public_v4(IPv4Address(int(parsed) & 0xFFFFFFFF))
    return _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not any(address in network for network in _NOT_PUBLIC_V4)
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
    )


def _is_public_v6(address: IPv6Address) -> bool:
    return (
        address in _GLOBAL_UNICAST
        and address.is_global
        and not any(address in network for network in _NOT_PUBLIC_V6)
        and not (address.is_multicast or address.is_reserved)
    )
