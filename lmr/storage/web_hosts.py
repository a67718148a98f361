"""Which hosts a web address may lead to: those that the internet can reach.

A list of addresses is written by others. An address, or a redirect, may lead to the network's own machines
(a router, a cloud's description of its server). So each name is resolved once, private addresses are refused,
and the connection goes to an address that was checked: a name that changes its meaning gains nothing.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["PrivateAddress", "check_literal", "checked_resolver", "is_public"]

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses behind which a network's gateway reaches the IPv4 address of their last 32 bits."""


class PrivateAddress(Exception):
    """A name or address leads to a machine that the internet cannot reach."""


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the internet, also of one that is wrapped into another.

    Examples
    --------
    >>> is_public("93.184.215.14"), is_public("192.168.1.1"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    ip = _unwrapped(address)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def check_literal(host: str, private: bool) -> None:
    """Check a host that is written in numbers: no name of it is resolved.

    Raises
    ------
    PrivateAddress
        If it may not be used.
    """
    with contextlib.suppress(ValueError):
        _fit([str(ipaddress.ip_address(host))], host, private)


def checked_resolver(private: bool) -> Any:
    """Return what resolves names for connections: to addresses that were checked, and no others."""
    from aiohttp.resolver import ThreadedResolver

    class Checked(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> Any:
            found = await super().resolve(host, port, family)
            fit = _fit([one["host"] for one in found], host, private)
            return [one for one in found if one["host"] in fit]

    return Checked()


def _fit(addresses: Sequence[str], host: str, private: bool) -> set[str]:
    """Return the addresses that may be used.

    Raises
    ------
    PrivateAddress
        If there is none.
    """
    fit = {one for one in addresses if is_public(one) or (private and not _unwrapped(one).is_link_local)}
    if not fit:
        raise PrivateAddress(
            f"{host} is a private address" if host in addresses else f"{host} has a private address"
        )
    return fit


def _unwrapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and (ip in _TRANSLATED or (int(ip) >> 32 == 0 and int(ip) > 1)):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return inner or ip
    return ip
