"""A host of photos on loopback, with the faults of the web: what is asked is counted, by path."""

import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class PhotoHost:
    """Serves `photos` (name to bytes) below /, and faults below /fault/: see `faults`.

    A fault that ends in `-once` is one of the first request only; then /photo is served.
    """

    def __init__(self, photos):
        self.photos, self.asked, self.times = dict(photos), Counter(), {}
        self.now, self.most, self._lock = 0, 0, threading.Lock()
        self.hold_seconds = 0.0
        self.down = set()
        """Names that are answered by 503 as long as they stand here."""
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self):
                path = unquote(self.path.split("?")[0])
                with host._lock:
                    host.asked[path] += 1
                    host.times.setdefault(path, []).append(time.monotonic())
                    host.now += 1
                    host.most = max(host.most, host.now)
                time.sleep(host.hold_seconds)
                with host._lock:
                    host.now -= 1  # before the answer: whoever has it may ask the next at once
                try:
                    self.respond(path)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def respond(self, path):
                name = path.removeprefix("/")
                if name in host.down:
                    return self.send(503, b"busy")
                if name in host.photos:
                    return self.send(200, host.photos[name])
                fault = path.removeprefix("/fault/")
                if fault.endswith("-once"):
                    fault = fault.removesuffix("-once") if host.asked[path] == 1 else "whole"
                return getattr(self, fault.replace("-", "_"), lambda: self.send(404, b"no"))()

            def send(self, status, body, **headers):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @property
            def photo(self):
                return next(iter(host.photos.values()))

            def whole(self):
                self.send(200, self.photo)

            def forbidden(self):
                self.send(403, b"no")

            def gone(self):
                self.send(410, b"no")

            def busy(self):
                self.send(503, b"busy")

            def internal(self):
                self.send(500, b"oh")

            def too_many(self):
                self.send(429, b"wait", Retry_After="1")

            def come_back_late(self):
                self.send(503, b"wait", Retry_After="86400")

            def drop(self):
                # Closed at once, with a reset rather than a farewell.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()

            def cut(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(self.photo)))
                self.end_headers()
                self.wfile.write(self.photo[: len(self.photo) // 2])
                self.wfile.flush()
                self.drop()

            def endless(self):
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while True:
                    self.wfile.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")

            def huge(self):
                self.send_response(200)
                self.send_header("Content-Length", str(10**12))
                self.end_headers()
                self.drop()

            def slow(self):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)

            def silent(self):
                time.sleep(5)
                self.close_connection = True

            def empty(self):
                self.send(200, b"")

            def page(self):
                self.send(200, b"<html>please log in</html>", Content_Type="text/html")

            def as_text(self):
                self.send(200, self.photo, Content_Type="text/plain")

            def packed(self):
                self.send(200, b"\x1f\x8b", Content_Encoding="gzip")

            def moved(self):
                self.send(302, b"", Location="../fault/whole")

            def round(self):
                self.send(301, b"", Location="/fault/round")

            def to_file(self):
                self.send(302, b"", Location="file:///etc/hostname")

            def to_cloud(self):
                self.send(302, b"", Location="http://169.254.169.254/latest/meta-data/")

            def to_name(self):
                self.send(302, b"", Location=f"http://elsewhere.example:{host.port}/fault/whole")

            def nonsense(self):
                self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
                self.close_connection = True

            def odd_status(self):
                self.send(599, b"what")

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass  # clients that hang up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
