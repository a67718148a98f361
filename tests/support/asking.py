"""A server of `lmr serve` in this process, and plain requests to it."""

import http.client
import io
import json
import struct
import threading
import time
import zlib
from contextlib import contextmanager, suppress

from PIL import Image

from lmr.api.server.serve import prepare_server

__all__ = ["Asked", "ask", "bomb", "serving"]


class Asked:
    """What a server answered."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


def ask(port, method, path, body=None, headers=None, timeout=90):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        # It may have answered already, and read no more.
        with suppress(BrokenPipeError, ConnectionResetError):
            chunked = "transfer-encoding" in (headers or {})
            connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        return Asked(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@contextmanager
def serving(run, **more):
    """Serve a run in a thread; yield its port and its address."""
    served = prepare_server(str(run), port=0, warm=False, **more)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    try:
        while not served.server.started:
            time.sleep(0.01)
        yield served.listener.getsockname()[1], served.url
    finally:
        served.server.should_exit = True
        thread.join(30)


def bomb(side=30_000):
    """A small PNG that claims to be large."""
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG")
    data = out.getvalue()
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
