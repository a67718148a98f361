"""Listen: on loopback without a token, elsewhere with one."""

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lmr.api.ask import PhotoSearch
from lmr.api.reopen import reopen
from lmr.api.server.guard import is_loopback
from lmr.api.server.limits import Limits
from lmr.errors import LmrError, SettingsError

__all__ = ["Served", "prepare_server"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that listens already and answers once it is run.

    Attributes
    ----------
    url
        Its address, with the token where there is one.
    server, listener
        The server, and the socket on which it listens.
    """

    url: str
    server: Any
    listener: socket.socket

    def run(self) -> None:
        """Answer until Ctrl-C, or a signal to end."""
        self.server.run(sockets=[self.listener])


def prepare_server(
    run: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Iterable[str] = (),
    token: str | None = None,
    limits: Limits | None = None,
    own_code: bool = False,
    warm: bool = True,
) -> Served:
    """Open a run, and listen.

    Parameters
    ----------
    run
        The run's folder.
    host, port
        Where to listen; port 0: any free one.
    names
        Further names under which the server is asked, such as that of a proxy.
    token
        What requests must show. None: nothing on loopback, and a new one elsewhere.
    limits
        What is taken from strangers.
    own_code
        See `lmr.api.reopen.reopen`.
    warm
        Whether to search once before listening, so that the first answer is as quick as others.

    Raises
    ------
    LmrError
        If the extra is not installed, the run cannot be searched, or the address cannot be listened on.
    """
    try:
        import uvicorn

        from lmr.api.server.app import make_app
        from lmr.api.server.gallery import Gallery
    except ModuleNotFoundError as error:
        raise LmrError(
            "the server is not installed", got=str(error), fix='pip install "lmr[serve]"'
        ) from error
    limits = limits or Limits()
    token = token or (None if is_loopback(host) else secrets.token_urlsafe(24))
    if token is not None and not (
        len(token) >= 16 and token.isascii() and token.isprintable() and " " not in token
    ):
        raise SettingsError(
            "the token is too easily guessed, or no plain text",
            got=f"{len(token)} characters",
            fix="give 16 letters and digits or more, or none: one is made then",
        )
    opened = reopen(run, own_code=own_code)
    search = PhotoSearch(opened)
    if warm:
        search.warm()
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    hosts = frozenset({host, *names, *(("localhost", "127.0.0.1", "::1") if is_loopback(host) else ())})
    app = make_app(Gallery(opened, search), hosts=hosts, token=token, limits=limits)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=16_384,
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}/{f'?token={token}' if token else ''}"
    return Served(url=url, server=uvicorn.Server(config), listener=listener)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise LmrError(
            f"cannot listen on {host}, port {port}",
            got=str(error),
            fix="give another --port, or --host 127.0.0.1",
        ) from error
