"""Ask a run's gallery one photo after the other, then serve it under load, hostile uploads among the good.

First the time to open a run, its first answer (which unpacks what is searched), and further ones. Then a
server of its own process is asked by several clients at once: photos, files that are no photo, cut ones,
files that claim to be huge, files over the bound, clients that break off, and requests of other sites. Every
answer has to be the one that its request is due. Printed are searches per second, latencies, and the
server's memory before and after. The last line is JSON. Seconds depend on what else the machine does.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from lmr.api.ask import open_search
from lmr.errors import PhotoError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("photos", type=Path, help="folder of photos to ask for")
    parser.add_argument("--asked", type=int, default=20, help="photos asked one after the other")
    parser.add_argument("--requests", type=int, default=200, help="requests under load")
    parser.add_argument(
        "--clients", type=int, default=6, help="clients at once; more than 9 are told to wait"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(arguments.photos.iterdir()) if path.is_file()]
    found = asked(arguments.run, contents[: arguments.asked])
    found |= loaded(arguments.run, contents, arguments)
    print(json.dumps(found))


def asked(run: str, contents: list[bytes]) -> dict[str, float]:
    """Measure a search that is opened here, with a cache of its own, so that the first one is cold."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LMR_CACHE"] = cache
        started = time.perf_counter()
        search = open_search(run)
        opened = time.perf_counter() - started
        seconds, processor = [], []
        for content in contents:
            started, used = time.perf_counter(), time.process_time()
            try:
                search.ask(content)
            except PhotoError:
                continue
            seconds.append(time.perf_counter() - started)
            processor.append(time.process_time() - used)
        del os.environ["LMR_CACHE"]
    warm = np.array(seconds[1:])
    print(f"opened in {opened:.2f} s; first answer {seconds[0]:.2f} s, with everything unpacked anew")
    print(f"{len(warm)} further answers: median {np.median(warm):.2f} s, longest {warm.max():.2f} s")
    print(f"processor time of one of them, which nothing delays: median {np.median(processor[1:]):.2f} s")
    return {
        "open_seconds": round(opened, 3),
        "cold_seconds": round(seconds[0], 3),
        "warm_median_seconds": round(float(np.median(warm)), 3),
        "warm_longest_seconds": round(float(warm.max()), 3),
        "cold_processor_seconds": round(processor[0], 3),
        "warm_processor_seconds": round(float(np.median(processor[1:])), 3),
    }


def loaded(run: str, contents: list[bytes], arguments: argparse.Namespace) -> dict[str, object]:
    """Measure a server under load."""
    command = [sys.executable, "-m", "lmr", "serve", run, "--port", "0", "--per-minute", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rsplit(":", 1)[1].strip("/\n"))
            for content in contents[:3]:
                request(port, content)
            process = psutil.Process(server.pid)
            before, used = memory(process), sum(process.cpu_times()[:2])
            results = hammer(port, contents, arguments)
            after, used = memory(process), sum(process.cpu_times()[:2]) - used
            alive = server.poll() is None
        finally:
            server.terminate()
            server.wait(30)
    seconds = np.array([s for kind, _, s in results["asked"] if kind == "photo"])
    counts = Counter((kind, status) for kind, status, _ in results["asked"])
    rate = len(seconds) / results["seconds"]
    p50, p99 = np.percentile(seconds, [50, 99])
    for (kind, status), count in sorted(counts.items(), key=str):
        print(f"{kind:22} {status} x {count}")
    print(f"{rate:.2f} searches/s of {arguments.clients} clients; latency p50 {p50:.2f} s, p99 {p99:.2f} s")
    searches = sum(count for (kind, status), count in counts.items() if status == 200)
    print(f"processor time of the server for each of {searches} searches: {used / max(searches, 1):.2f} s")
    megabytes = [round(n / 1e6) for n in (before, after, results["peak"])]
    print("memory {} MB before, {} MB after, peak {} MB".format(*megabytes))
    print(f"{len(results['wrong'])} wrong answers; the server {'answers on' if alive else 'HAS ENDED'}")
    for one in results["wrong"][:5]:
        print(f"wrong: {one}")
    return {
        "searches_per_second": round(rate, 3),
        "p50_seconds": round(float(p50), 3),
        "p99_seconds": round(float(p99), 3),
        "processor_seconds_per_search": round(used / max(searches, 1), 3),
        "memory_before": before,
        "memory_after": after,
        "memory_peak": results["peak"],
        "wrong": len(results["wrong"]),
        "alive": alive,
    }


def hammer(port: int, contents: list[bytes], arguments: argparse.Namespace) -> dict[str, object]:
    """Send all requests from several threads; return kinds, statuses and seconds."""
    draw = random.Random(arguments.seed)
    jobs = [
        draw.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        for _ in range(arguments.requests)
    ]
    asked_, wrong, peak, lock = [], [], [0], threading.Lock()
    process = next(one for one in psutil.Process().children(recursive=False) if "serve" in one.cmdline())

    def work() -> None:
        while True:
            with lock:
                if not jobs:
                    return
                kind, content = jobs.pop(), draw.choice(contents)
            started = time.perf_counter()
            try:
                status = SEND[kind](port, content)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__  # no answer is a wrong one
            seconds = time.perf_counter() - started
            with lock:
                asked_.append((kind, status, seconds))
                peak[0] = max(peak[0], memory(process))
                if status not in KINDS[kind][1]:
                    wrong.append((kind, status))

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(arguments.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"asked": asked_, "wrong": wrong, "peak": peak[0], "seconds": time.perf_counter() - started}


def memory(process: psutil.Process) -> int:
    """Return what the server and its decoder hold themselves, without files that are mapped."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            info = one.memory_info()
            total += info.rss - info.shared
        except psutil.NoSuchProcess:
            continue
    return total


def request(port: int, body: bytes, path: str = "/api/search", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        # It may have answered already, and read no more.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        with contextlib.suppress(http.client.IncompleteRead, ConnectionResetError):
            answer.read()
        return answer.status
    finally:
        connection.close()


def broken_off(port: int, content: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(
            b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
            + content[:5000]
        )
    return 0


def bomb(content: bytes) -> bytes:
    """Return a small PNG that claims 30,000 x 30,000 pixels."""
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return out.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + out.getvalue()[33:]


def large(content: bytes) -> bytes:
    """Return a photo of 36 million pixels, within the bounds."""
    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").resize((6000, 6000)).save(out, "JPEG")
    return out.getvalue()


KINDS = {
    "photo": (10, {200}),
    "photo of the gallery": (2, {200}),
    "no photo": (2, {422}),
    "cut photo": (2, {422}),
    "decompression bomb": (2, {422}),
    "36 million pixels": (1, {200}),
    "over the bound": (1, {413}),
    "broken off": (2, {0}),
    "another site": (1, {403}),
    "another name": (1, {421}),
}
SEND = {
    "photo": request,
    "photo of the gallery": lambda port, content: request(
        port, b"", f"/api/photos/{len(content) % 20}/search"
    ),
    "no photo": lambda port, content: request(port, random.randbytes(200_000)),
    "cut photo": lambda port, content: request(port, content[: len(content) // 3]),
    "decompression bomb": lambda port, content: request(port, bomb(content)),
    "36 million pixels": lambda port, content: request(port, large(content)),
    "over the bound": lambda port, content: request(port, bytes(21_000_000)),
    "broken off": broken_off,
    "another site": lambda port, content: request(port, content, Origin="http://evil.example"),
    "another name": lambda port, content: request(port, content, Host="evil.example"),
}

if __name__ == "__main__":
    main()
