"""Photos from web addresses beside img2dataset, a large folder listed and planned, and a task's memory.

    python benchmarks/ingest.py [--photos 1000] [--side 1024] [--files 100000] [--img2dataset PYTHON]

Both programs fetch the same photos from the same local server, decode each one, and write Parquet files; each
has one process that fetches, and the same number of connections. img2dataset is asked to keep the bytes of
photos (`--resize_mode no --skip_reencode True`), as lmr does, and then to shrink them, as
`ingest.max_side_px` does. Each is run with few and with many photos, in turn, and the differences are
compared: starting up is not in the figures. Processor time is that of the program and of all processes that
it starts; the server's is not in it.

img2dataset lives in an environment of its own: `python -m venv i2d && i2d/bin/pip install img2dataset`, then
`--img2dataset i2d/bin/python`. Without it, lmr alone is measured.

Seconds depend on the machine and on what else runs on it; the ratio of one run is what counts.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

CONNECTIONS = 32


@dataclass(frozen=True)
class Took:
    """Seconds and processor seconds of a program, and what it says of itself."""

    seconds: float
    cpu_seconds: float
    told: dict[str, Any]


def rendered(count: int, side: int) -> list[bytes]:
    """Return so many photos of a rendered world, as JPEGs of a quality that cameras use."""
    from lmr.testing import World, write_world

    with tempfile.TemporaryDirectory() as folder:
        world = World(landmarks=4, gallery_per_landmark=(3, 4), queries=4, distractors=6, long_side_px=side)
        write_world(world, Path(folder))
        photos = []
        for path in sorted(Path(folder).rglob("*.jpg"))[:count]:
            out = io.BytesIO()
            Image.open(path).save(out, "JPEG", quality=92)
            photos.append(out.getvalue())
    return photos


def serve(folder: str) -> None:
    """Serve the photos of a folder from memory until the process is ended; prints the port."""
    from aiohttp import web

    photos = [path.read_bytes() for path in sorted(Path(folder).iterdir())]

    async def answer(request: web.Request) -> web.Response:
        number = int(request.path.strip("/").removesuffix(".jpg"))
        return web.Response(body=photos[number % len(photos)], content_type="image/jpeg")

    application = web.Application()
    application.router.add_get("/{name}", answer)
    web.run_app(
        application,
        host="127.0.0.1",
        port=0,
        access_log=None,
        print=lambda text: print(text, flush=True),
    )


def lmr_ingest(addresses: str, out: str, side: int) -> None:
    """Ingest a list of addresses in this process; prints what the tasks took."""
    from lmr.cluster.client import Where
    from lmr.scheduler.run import run
    from lmr.steps.photos.ingest import IngestSettings, ingest
    from lmr.steps.photos.listing import list_photos
    from lmr.steps.photos.web import WebSettings

    photos = list_photos("gallery", addresses)
    web = WebSettings(private=True, connections=CONNECTIONS, per_host=CONNECTIONS)
    (step,) = ingest(photos, IngestSettings(max_side_px=side), web).parts
    run([step], out, Where())
    dataset = step.dataset(out)
    parts = [dataset.read(i, ["reason"]).column("reason").to_pylist() for i in range(step.shards)]
    reasons = [reason for part in parts for reason in part]
    peak = max(dataset.facts(i)["peak_bytes"] for i in range(step.shards))
    used = sum(not reason for reason in reasons)
    print(json.dumps({"photos": used, "peak_bytes": peak, "stated_bytes": step.cost.peak_bytes}))


IMG2DATASET = """
import sys, json, glob
from img2dataset import download
import pyarrow.parquet as pq
if __name__ == "__main__":
    addresses, out, side, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    shape = (
        dict(resize_mode="keep_ratio_largest", image_size=side, resize_only_if_bigger=True)
        if side else dict(resize_mode="no")
    )
    download(addresses, output_folder=out, processes_count=1, thread_count=threads, output_format="parquet",
             number_sample_per_shard=128, skip_reencode=True, **shape)
    files = glob.glob(out + "/*.parquet")
    tables = [pq.read_table(file, columns=["status"]) for file in files]
    done = sum(one == "success" for table in tables for one in table["status"].to_pylist())
    print(json.dumps({"photos": done}))
"""


def took(command: Sequence[str]) -> Took:
    """Run a program to its end; its last line is JSON."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(seconds, cpu, json.loads(done.stdout.strip().splitlines()[-1]))


def beside(photos: int, few: int, side: int, port: str, python: str | None, rounds: int) -> dict[str, Any]:
    """Measure both programs in turn; photos a second, and a second of processor time, from differences."""
    found: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lists = {}
        for count in (few, few + photos):
            lists[count] = Path(folder) / f"{count}.txt"
            lists[count].write_text("".join(f"{port}/{i}.jpg\n" for i in range(count)))
        script = Path(folder) / "i2d.py"
        script.write_text(IMG2DATASET)
        programs: dict[str, list[str]] = {"lmr": [sys.executable, __file__, "--lmr"]}
        if python:
            programs["img2dataset"] = [python, str(script)]
        for turn in range(rounds):
            for name, program in programs.items():
                for count, addresses in lists.items():
                    out = f"{folder}/{name}-{turn}-{count}"
                    one = took([*program, str(addresses), out, str(side), str(CONNECTIONS)])
                    assert one.told["photos"] == count, f"{name} has {one.told} of {count}"
                    print(f"{name}, {count} photos: {one}", file=sys.stderr, flush=True)
                    found.setdefault(f"{name} {count}", []).append(one)
    result: dict[str, Any] = {}
    for name in programs:
        pairs = list(zip(found[f"{name} {few}"], found[f"{name} {few + photos}"], strict=True))
        seconds = statistics.median(b.seconds - a.seconds for a, b in pairs)
        cpu_seconds = statistics.median(b.cpu_seconds - a.cpu_seconds for a, b in pairs)
        result[name] = {"photos_per_second": photos / seconds, "photos_per_cpu_second": photos / cpu_seconds}
    if python:
        result["ratio"] = {key: value / result["img2dataset"][key] for key, value in result["lmr"].items()}
    last = found[f"lmr {few + photos}"][-1].told
    result["peak_of_a_task_bytes"] = {"measured": last["peak_bytes"], "stated": last["stated_bytes"]}
    return result


def listed(count: int) -> dict[str, float]:
    """Make a folder of small files; return the seconds in which it is listed, and planned."""
    from lmr.runtime.graph import make_plan
    from lmr.steps.both import Both
    from lmr.steps.inputs import Inputs
    from lmr.steps.photos.listing import list_photos
    from workflows.retrieval import PRESETS, build

    out = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(out, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            below = f"{folder}/photos/{i // 1000:03d}"
            if i % 1000 == 0:
                os.makedirs(below)
            with open(f"{below}/photo {i}.jpg", "wb") as file:
                file.write(out.getvalue())
        start = time.perf_counter()
        photos = list_photos("gallery", f"{folder}/photos")
        middle = time.perf_counter()
        queries = list_photos("queries", f"{folder}/photos/000")
        flow = build(Inputs(photos=Both(photos, queries)), PRESETS["vlad"])
        make_plan(flow.targets, f"{folder}/run")
        end = time.perf_counter()
    assert len(photos) == count
    return {"files": count, "listed_seconds": middle - start, "planned_seconds": end - middle}


def measured(chosen: argparse.Namespace) -> dict[str, Any]:
    """Start the server, and measure the programs beside each other."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = rendered(20, chosen.side)
        for i, photo in enumerate(photos):
            (Path(folder) / f"{i:03d}.jpg").write_bytes(photo)
        result["mean_photo_bytes"] = statistics.mean(map(len, photos))
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", folder], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            said = next(line for line in server.stdout if "http://" in line)
            host = f"http://{said.split('http://')[1].split()[0]}"
            for name, side in (("as they are", 0), ("shrunk", chosen.side // 2)):
                result[name] = beside(chosen.photos, 64, side, host, chosen.img2dataset, chosen.rounds)
                print(json.dumps({name: result[name]}), file=sys.stderr, flush=True)
        finally:
            server.terminate()
            server.wait()
    return result


def main() -> None:
    if sys.argv[1:2] == ["--lmr"]:
        lmr_ingest(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
        return
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--photos", type=int, default=1000)
    options.add_argument("--side", type=int, default=1024)
    options.add_argument("--files", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--img2dataset", metavar="PYTHON")
    chosen = options.parse_args()
    result: dict[str, Any] = measured(chosen) if chosen.photos else {}
    if chosen.files:
        result["listing"] = listed(chosen.files)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
