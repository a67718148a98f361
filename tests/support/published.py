"""Small data sets with the layout of the published ones: path below the publisher's host to bytes."""

import collections
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from contextlib import contextmanager

import numpy as np
from PIL import Image


def photo(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def tar_of(members, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def google_landmarks():
    """Two archives of index and test, three photos in each, and the contest's solution."""
    files = {}
    for side in ("index", "test"):
        for i in range(2):
            ids = [f"{side[0]}{i}{k}{'0' * 13}" for k in range(3)]
            tar = tar_of({f"{d[0]}/{d[1]}/{d[2]}/{d}.jpg": photo(hash((side, i, d)) % 1000) for d in ids})
            files[f"{side}/images_{i:03d}.tar"] = tar
            digest = hashlib.md5(tar).hexdigest()
            files[f"md5sum/{side}/md5.images_{i:03d}.txt"] = f"{digest}  images_{i:03d}.tar\n".encode()
    zeros = "0" * 13
    solution = [
        "id,images,Usage",
        f"t00{zeros},i00{zeros} i10{zeros},Public",
        f"t01{zeros},i11{zeros},Private",
        f"t02{zeros},None,Ignored",
        f"t10{zeros},i02{zeros},Private",
    ]
    files["ground_truth/retrieval_solution_v2.1.csv"] = "\n".join([*solution, ""]).encode()
    files["ground_truth/recognition_solution_v2.1.csv"] = (
        f"id,landmarks,Usage\nt00{zeros},7,Public\n".encode()
    )
    return files


def truth(arrays=True):
    """Ground truth of the form of revisitop's: two queries, four photos."""

    def numbers(*values):
        return np.array(values, np.int64) if arrays else list(values)

    return {
        "imlist": ["all_souls_000001", "all_souls_000002", "keble_000003", "oxford_000004"],
        "qimlist": ["all_souls_000013", "keble_000245"],
        "gnd": [
            {"bbx": [2.0, 1.0, 22.0, 16.0], "easy": numbers(0), "hard": numbers(1), "junk": numbers(3)},
            {"bbx": numbers(0, 0, 40, 30), "easy": numbers(), "hard": numbers(2), "junk": numbers()},
        ],
    }


def revisited(protocol=4):
    """Oxford's archive of photos, the ground truth, and two archives of distractors."""
    found = truth()
    names = [*found["imlist"], *found["qimlist"], "oxford_000099"]
    photos = {f"{name}.jpg": photo(i) for i, name in enumerate(names)}
    return {
        "oxbuild_images-v1.tgz": tar_of(photos, "w:gz"),
        "gnd_roxford5k.pkl": pickle.dumps(found, protocol),
        **{
            f"revisitop1m.{i}.tar.gz": gzip.compress(tar_of({f"jpg/{i}/{i}a.jpg": photo(50 + i)}))
            for i in (1, 2)
        },
    }


def ilias():
    """Two objects: a query each, three positive photos."""
    members = {}
    for thing, positives in (("bold_bimp_000", 2), ("zippy_zoot_999", 1)):
        number = thing[-3:]
        members[f"ilias_core/{thing}/query/Q{number}_00.jpg"] = photo(int(number))
        members[f"ilias_core/{thing}/query/Q{number}_00_bbox.txt"] = b"1 2 3 4\n"
        for k in range(positives):
            members[f"ilias_core/{thing}/pos/P{number}_{k:02d}.jpg"] = photo(int(number) + k + 1)
    tar = tar_of(members)
    checksum = f"{hashlib.sha256(tar).hexdigest()} https://vrg.fel.cvut.cz/ilias_data/ilias_core.tar\n"
    return {"ilias_core.tar": tar, "checksums.txt": checksum.encode()}


class Host:
    """A web server on loopback with these files, which fails on command.

    `faults` holds what to do with the next requests for paths that end so: "drop" and "half" close the
    connection, at once or after half of the body; a number is a status. `asked` counts the bodies that were
    sent, by path. With `ranges` off it gives whole files only.
    """

    def __init__(self, files, ranges=True):
        self.files, self.ranges = dict(files), ranges
        self.faults = collections.defaultdict(list)
        self.asked = collections.Counter()
        self.sent = collections.Counter()


@contextmanager
def hosted(files, *, ranges=True):
    host = Host(files, ranges)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.reply(head=True)

        def do_GET(self):
            self.reply(head=False)

        def reply(self, head):
            path = self.path.lstrip("/")
            fault = (
                None if head else next((f.pop(0) for p, f in host.faults.items() if p == path and f), None)
            )
            if fault == "drop":
                self.close_connection = True
                return
            if path not in host.files or isinstance(fault, int):
                self.send_response(fault or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            whole = host.files[path]
            body, status = whole, 200
            asked = self.headers.get("Range")
            if asked and host.ranges:
                start, _, stop = asked.removeprefix("bytes=").partition("-")
                body, status = whole[int(start) : int(stop) + 1], 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{int(start) + len(body) - 1}/{len(whole)}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(whole).hexdigest()[:16]}"')
            self.end_headers()
            if head:
                return
            if fault == "half":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            host.asked[path] += 1
            host.sent[path] += len(body)
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # clients that hang up

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        host.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
