"""Addresses of schedulers and machines, as users and Dask write them: the one place that takes them apart."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Self

from lmr.errors import ClusterError

__all__ = ["Address", "host_name", "own_host", "resolve"]

_FORM = re.compile(r"(?:(?P<scheme>\w+)://)?(?P<host>\[[^\[\]]+\]|[^\[\]:/@\s]+):(?P<port>\d{1,5})/?")
_LARGEST_PORT = 65535
_NO_ADDRESS = "this is not the address of a scheduler"
_PLACEHOLDER_PORT = 9
"""Looking up a route needs a port; nothing is ever sent there."""


@dataclass(frozen=True)
class Address:
    """An address that something listens at.

    Attributes
    ----------
    scheme
        `tcp` or `tls`.
    host
        Name of a host, or an IPv4 or IPv6 address without brackets.
    port
        Port at the host.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `tcp://host:port`, `tls://host:port` or `host:port`; an IPv6 address stands in brackets.

        Parameters
        ----------
        text
            The address. Without a scheme it is `tcp`, as for Dask.

        Raises
        ------
        ClusterError
            If it is no such address.
        """
        found = _FORM.fullmatch(text.strip())
        scheme = (found["scheme"] or "tcp").lower() if found else ""
        if found is None or scheme not in ("tcp", "tls") or int(found["port"]) > _LARGEST_PORT:
            raise ClusterError(_NO_ADDRESS, got=text or "nothing", fix=_fix(text))
        host = found["host"]
        if host.startswith("[") and not _is_ipv6(host[1:-1]):
            raise ClusterError(_NO_ADDRESS, got=text, fix=_fix(""))
        return cls(scheme, host.strip("[]"), int(found["port"]))

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.scheme == "tls"

    @property
    def location(self) -> str:
        """Host and port as one text, an IPv6 address in brackets."""
        return f"{host_name(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.location}"


def _fix(text: str) -> str:
    """Return an address that may have been meant."""
    scheme, _, bare = text.strip().rpartition("://")
    host, _, port = bare.rpartition(":")
    if scheme in ("", "tcp", "tls"):
        prefix = f"{scheme or 'tls'}://"
        if bare.startswith("[") and _is_ipv6(bare.strip("[]:/")):
            return f"name the port: {prefix}[{bare.strip('[]:/')}]:8786"
        if _is_ipv6(bare):
            return f"put IPv6 in brackets and name the port: {prefix}[{bare}]:8786"
        if _is_ipv6(host) and port.isdecimal():
            return f"put IPv6 in brackets: {prefix}[{host}]:{port}"
        if re.fullmatch(r"[\w.-]+", bare):
            return f"name the port: {prefix}{bare}:8786"
    return "such as tls://host:8786, tcp://127.0.0.1:8786 or tls://[::1]:8786"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return a host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def resolve(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of a host, given by name or by address, with or without brackets.

    Raises
    ------
    ClusterError
        If there is no such host.
    """
    try:
        found = {str(info[4][0]): None for info in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError) as error:
        raise ClusterError(
            f"there is no host {host}",
            got=str(error),
            fix="check the name, or give an address such as 127.0.0.1 or ::1",
        ) from error
    return [_plain(ipaddress.ip_address(address.partition("%")[0])) for address in found]


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one stands for: `::ffff:8.8.8.8` is as public as 8.8.8.8."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def own_host(address: str) -> str:
    """Return the address of this machine on the way to a scheduler, as its workers give it.

    Raises
    ------
    ClusterError
        If the address is not one, its host is unknown, or no way leads there.
    """
    host = Address.parse(address).host
    # The zone of a link-local address matters for the route, so the name is looked up, not the bare address.
    reasons = []
    for target in resolve(host):
        family = socket.AF_INET6 if target.version == 6 else socket.AF_INET
        # Connecting a datagram socket sends nothing; it only looks up the route.
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host if "%" in host else str(target), _PLACEHOLDER_PORT))
                return str(probe.getsockname()[0])
        except OSError as error:
            reasons.append(str(error))
    raise ClusterError(
        f"there is no way to {address} from this machine", got="; ".join(reasons), fix="check the network"
    )
