"""A page on this machine's loopback address that is made anew each time a browser asks for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

__all__ = ["served"]


@contextmanager
def served(page: Callable[[], str], port: int = 0) -> Iterator[str]:
    """Serve one page while the block runs.

    It answers to `localhost` and `127.0.0.1` alone, so that no page of a stranger which is open in the same
    browser can read it under a name of its own.

    Parameters
    ----------
    page
        Returns the page as HTML; called from other threads.
    port
        Where to listen; 0: at any free port.

    Yields
    ------
    url
        Where a browser finds it.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(page))
    server.daemon_threads = True
    known = {f"{host}:{server.server_port}" for host in ("localhost", "127.0.0.1")}
    server.known_hosts = known  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(page: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer with the page."""
            if self.headers.get("Host") not in self.server.known_hosts:  # type: ignore[attr-defined]
                self.send_error(403, "this page answers to localhost only")
                return
            if self.path != "/":
                self.send_error(404)
                return
            data = page().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal shows the run's progress."""

    return Handler
