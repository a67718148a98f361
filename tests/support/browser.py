"""A real browser for tests: Chromium, driven by its chromedriver in the protocol of W3C WebDriver."""

import base64
import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed (chromium, chromium-driver)"
)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One window."""

    def __init__(self, server, session):
        self.base = f"{server}/session/{session}"

    def __call__(self, command, **body):
        return call("POST", f"{self.base}/{command}", body)

    def open(self, url):
        self("url", url=url)

    def run(self, script, *arguments):
        """Run JavaScript; it may `return` a value."""
        return self("execute/sync", script=script, args=list(arguments))

    def run_async(self, script, *arguments):
        """Run JavaScript that calls its last argument when it is done."""
        return self("execute/async", script=script, args=list(arguments))

    def wait(self, script, seconds=60.0):
        """Wait until an expression is true; return its value."""
        stop = time.monotonic() + seconds
        while True:
            if found := self.run(f"return {script}"):
                return found
            if time.monotonic() > stop:
                raise AssertionError(f"not in {seconds} s: {script}")
            time.sleep(0.05)

    def keys(self, *keys):
        """Press keys, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self("actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def messages(self):
        """What the browser has complained of since it was asked last."""
        return [entry["message"] for entry in self("se/log", type="browser")]

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(call("GET", f"{self.base}/screenshot")))


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=180) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None


@contextmanager
def browser(folder, *, width=1280, height=900, dark=False):
    """Open a window of a browser whose profile lies in `folder`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
    server = f"http://127.0.0.1:{port}"
    try:
        wait_for(server)
        arguments = [*OPTIONS, f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = call("POST", f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        window = Browser(server, session)
        try:
            window("timeouts", script=120_000, pageLoad=120_000)
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            devtools(window, "Emulation.setEmulatedMedia", features=scheme)
            if width < 700:
                devtools(
                    window,
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=True,
                )
            yield window
        finally:
            call("DELETE", window.base)
    finally:
        driver.terminate()
        driver.wait()


def devtools(window, command, **parameters):
    return window("goog/cdp/execute", cmd=command, params=parameters)


def wait_for(server):
    for _ in range(600):
        try:
            if call("GET", f"{server}/status")["ready"]:
                return
        except (URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise AssertionError("the browser's driver does not answer")
