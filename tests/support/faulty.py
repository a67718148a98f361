"""An HTTP proxy on loopback that stands before an S3 server, counts what is asked, and fails on command."""

import http.client
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message><RequestId>1</RequestId></Error>"
)
INTERNAL = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code>'
    b"<Message>We encountered an internal error.</Message><RequestId>1</RequestId></Error>"
)
EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>ExpiredToken</Code>'
    b"<Message>The provided token has expired.</Message><RequestId>1</RequestId></Error>"
)

FORBIDDEN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message><RequestId>1</RequestId></Error>"
)
ANSWERS = {"slow down": (503, SLOW_DOWN), "internal": (500, INTERNAL), "forbidden": (403, FORBIDDEN)}


class FaultyProxy:
    """Forwards to `target` (host, port); `fault(method, path)` may return what to do instead.

    "slow down", "internal" and "forbidden" are answers (503, 500, 403). "reset" drops the connection before
    the server hears of the request, "late reset" after it has done what was asked. "half" sends half of the
    body. Requests signed with a key of `expired_keys` get S3's answer to an expired token: 400, without a
    body to HEAD.
    """

    def __init__(self, target, fault=lambda method, path: None, *, host="127.0.0.1", port=0):
        self.fault, self.requests = fault, []
        self.expired_keys = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                fault = proxy.fault(self.command, self.path)
                signed = self.headers.get("Authorization", "")
                if any(f"Credential={key}/" in signed for key in proxy.expired_keys):
                    return self.answer(400, {"Content-Type": "application/xml"}, EXPIRED)
                if fault == "reset":
                    return self.reset()
                if fault in ANSWERS:
                    status, answer = ANSWERS[fault]
                    return self.answer(status, {"Content-Type": "application/xml"}, answer)
                server = http.client.HTTPConnection(*target, timeout=60)
                server.request(self.command, self.path, body, dict(self.headers))
                response = server.getresponse()
                answer = response.read()
                server.close()
                if fault == "late reset":
                    return self.reset()
                headers = {k: v for k, v in response.getheaders() if k.lower() != "transfer-encoding"}
                return self.answer(response.status, headers, answer, half=fault == "half")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def answer(self, status, headers, body, half=False):
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "server", "date"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", headers.get("content-length", len(body)))
                self.send_header("Content-Length", str(length if self.command == "HEAD" else len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if half else body)
                if half:
                    self.reset()

            def reset(self):
                # Closing at once, with a reset rather than a farewell.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # clients that hang up

        self.server = Server((host, port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self):
        self.thread.start()
        self.url = f"http://{self.server.server_address[0]}:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def burst(*faults):
    """Return a fault function: these faults for the first requests, one each; then none."""
    left = list(faults)
    lock = threading.Lock()

    def fault(method, path):
        with lock:
            return left.pop(0) if left else None

    return fault
