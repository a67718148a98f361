"""Who may look at a dashboard: loaded by schedulers and workers before they begin to listen (`--preload`).

A dashboard has no password, so it listens on a private address. That does not keep out a page of a stranger
which is open in the user's browser: the stranger's name may be made to point to the private address (DNS
rebinding), and a websocket may be opened to any address. Dask answers both. Here neither is answered:

- The host that was asked for is an IP address, `localhost`, or a name that this dashboard was told to have.
  An IP address cannot be made to point elsewhere.
- The page that asks, if a browser names one, came from the same host and port, or from one of those names.

Dask also cannot read IPv6 addresses to listen at; that is mended here too. Both are done when this module is
loaded, not by Dask's `dask_setup`: that comes after the first visitors, and its failures are only logged.
"""

import ipaddress
import os
import socket
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

import distributed.node
from distributed.http.routing import RoutingApplication
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from lmr.cluster.address import Address
from lmr.cluster.commands import NAMES_VARIABLE

__all__ = ["is_welcome", "listening_at", "own_names"]


def is_welcome(host: str, origin: str | None, names: Collection[str]) -> bool:
    """Return whether a request is answered.

    Parameters
    ----------
    host
        What the request calls this server: a name or an address, perhaps with a port.
    origin
        Where the page came from that asks, such as `http://localhost:8787`; None if nobody said so.
    names
        The names of this server.
    """
    asked = _name_in(f"//{host}")
    if asked is None or not (_is_ip(asked) or asked in names):
        return False
    if origin is None:
        return True
    return origin.lower().partition("://")[2] == host.lower() or _name_in(origin) in names


def own_names() -> frozenset[str]:
    """Return the names of this server: `localhost`, the machine's, and those that it was given."""
    given = os.environ.get(NAMES_VARIABLE, "").split(",")
    return frozenset(name.strip().lower() for name in ("localhost", socket.gethostname(), *given)) - {""}


def listening_at(addresses: Any) -> list[dict[str, Any]]:
    """Read where a dashboard shall listen; an IPv6 address stands in brackets."""
    if isinstance(addresses, str) and addresses.startswith("["):
        where = Address.parse(addresses)
        return [{"address": where.host, "port": where.port}]
    found: list[dict[str, Any]] = _DASKS_LISTENING_AT(addresses)
    return found


def _name_in(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Refused(RequestHandler):
    """Answers every request with the same few words."""

    def prepare(self) -> None:
        """Refuse."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            "this dashboard does not answer to that name, or to pages of other servers\n"
            "fix: ask for it as localhost or by its IP address,"
            " or start it with `lmr cluster scheduler --dashboard-name NAME`\n"
        )


def _guarded(find_handler: Callable[..., Any]) -> Callable[..., Any]:
    names = own_names()

    def find(application: RoutingApplication, request: HTTPServerRequest, **options: Any) -> Any:
        if is_welcome(request.host, request.headers.get("Origin"), names):
            return find_handler(application, request, **options)
        return application.get_handler_delegate(request, Refused)

    return find


_DASKS_LISTENING_AT = distributed.node.clean_dashboard_address
distributed.node.clean_dashboard_address = listening_at
RoutingApplication.find_handler = _guarded(RoutingApplication.find_handler)
