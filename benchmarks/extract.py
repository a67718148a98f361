"""Extraction as a step against its bare network: photos per second, and where the time goes.

    python benchmarks/extract.py [--network xfeat] [--photos 48] [--side 1024]
    python benchmarks/extract.py --network resnet101 --device cuda --precision bfloat16 --photos 1000
    python benchmarks/extract.py --network delf --device cuda --precision float16 --photos 1000

End to end is the step itself, from shards of encoded photos in storage to shards of features in storage, in
one process. Bare is the network alone, on the very batches that the step made, their input already on the
device, with nothing waited for between batches. The two take turns, and medians are compared. Reading,
decoding (with shrinking, in as many threads as the step has), transfer (pixels to the network's normalised
input) and writing are then each timed apart: where the step overlaps them, all add up to more than the whole.

Photos are development photos, enlarged or shrunk to the side and encoded again; rendered ones where those are
not at hand. Speed does not depend on weights: those of ResNet and DELF are random, the others real.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _shared import missing, shared_or_none
from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from local_features import write_delf_by_rule

from lmr import storage
from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.features.decoding import decode_photo
from lmr.features.extractors import GemSettings
from lmr.features.networks._torchvision import torchvision
from lmr.features.networks.devices import compute_device
from lmr.features.pipeline import decoding_threads
from lmr.features.prepared import PreparedPhoto
from lmr.features.weights.packaged import LITE0
from lmr.runtime.steps import Each, Source, Step
from lmr.runtime.threads import limit_threads, threads
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.local import LocalSettings, extract_local, open_local
from lmr.steps.features.network import describe_by_network, open_network
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.ingest import IngestSettings, ingest, read_usable
from lmr.steps.photos.listing import list_photos
from lmr.testing import World, jpeg
from lmr.testing import photos as world_photos

NETWORKS = ("xfeat", "aliked-t16", "delf", "mobilenet_v2", "resnet50", "resnet101", "lite0")
RANDOM = ("delf", "resnet50", "resnet101")
# Held on the device at once while the bare network is timed. A GPU should not wait between batches; on a CPU
# hundreds of megabytes more in use slow down the allocation of activations, which is no fault of the network.
INPUT_BYTES = {"cuda": 4 << 30, "cpu": 0}


@dataclass(frozen=True)
class Job:
    """A step that extracts, the step that made its photos, the folder, and the extractor that it uses."""

    step: Step
    images: Step
    root: str
    extractor: Any
    device: torch.device


def photos_of(count: int, side_px: int) -> Iterator[bytes]:
    """Yield development photos, each at this long side, as JPEG; rendered ones where there are none."""
    folder = shared_or_none("data/landmarks/gallery")
    if folder is not None:
        sources = sorted(folder.iterdir())
        found = [source.read_bytes() for source in sources[:: max(1, len(sources) // count)][:count]]
    else:
        world = World(landmarks=2, gallery_per_landmark=(2, 2), queries=4, distractors=2)
        some = [jpeg(world, spec) for spec in world_photos(world)[:count]]
        found = [some[i % len(some)] for i in range(count)]
    for source in found:
        image = Image.fromarray(decode_photo(source))
        zoom = side_px / max(image.size)
        image = image.resize(
            (round(zoom * image.width), round(zoom * image.height)), Image.Resampling.BICUBIC
        )
        data = io.BytesIO()
        image.save(data, "JPEG", quality=90)
        yield data.getvalue()


def weights_of(network: str, folder: Path) -> Path | None:
    """Return weights for the network, made up where they are random; None where they are not at hand."""
    if network == "lite0":
        return LITE0.path() if LITE0.is_installed() else None
    if network == "delf":
        return write_delf_by_rule(folder)
    if network in ("resnet50", "resnet101"):
        torch.manual_seed(0)
        path = folder / f"{network}.pth"
        torch.save(getattr(torchvision().models, network)(weights=None).state_dict(), path)
        return path
    files = {"xfeat": "xfeat/xfeat_folded.npz", "mobilenet_v2": "mobilenet_v2_imagenet.pth"}
    return shared_or_none(f"weights/{files.get(network, f'aliked/{network}.pth')}")


def prepare(options: argparse.Namespace, folder: Path) -> Job:
    """Declare the steps, ingest the photos and open the extractor; nothing of it is timed."""
    (folder / "photos").mkdir()
    for number, data in enumerate(photos_of(options.photos, options.side)):
        (folder / "photos" / f"{number:05}.jpg").write_bytes(data)
    photos = list_photos("gallery", str(folder / "photos"))
    path = weights_of(options.network, folder) or missing(f"the weights of {options.network}")
    weights = Weights.of(str(path))
    inputs = Inputs(
        photos=Both(photos, photos), weights=weights, local_weights=weights, device=options.device
    )
    (images,) = ingest(photos, IngestSettings(photos_per_shard=options.photos_per_shard)).parts
    if options.network in ("xfeat", "aliked-t16", "delf"):
        local = LocalSettings(features=options.network, max_side_px=options.side, precision=options.precision)
        (step,) = extract_local(images, local, inputs).source.parts
        extractor: Any = open_local(local, weights, options.device)
        if options.network == "delf":
            extractor.threshold = 0.0  # the released one is of the released weights' attention
    else:
        gem = GemSettings(
            architecture={"lite0": "efficientnet_lite0"}.get(options.network, options.network),
            sizes_px=(options.side,),
            scales=tuple(options.scales),
            precision=options.precision,
        )
        both: Both[Source] = Both(images, images)
        described = describe_by_network(both, DescribeSettings(descriptor="gem", gem=gem), inputs)
        raw = described.gallery.source.parts[0].inputs["raw"]  # whitening is not timed
        assert isinstance(raw, Each)
        (step,) = raw.step.parts
        extractor = open_network(gem, weights, options.device)
    root = str(folder / "run")
    run([images], root, Where(), quiet())
    limit_threads()
    extractor([decode_photo(data) for data in usable(images, root, 0)[:2]])  # what a first call alone pays
    return Job(step, images, root, extractor, compute_device(options.device))


def quiet() -> ProgressBars:
    return ProgressBars(Console(quiet=True))


def usable(images: Step, root: str, shard: int) -> list[bytes]:
    return read_usable(images.dataset(root), shard).images


def end_to_end(job: Job) -> float:
    """Run the step from nothing; return its seconds."""
    storage.delete(job.step.dataset(job.root).url)
    return timed(lambda: run([job.step], job.root, Where(), quiet()), job.device)


def batches_of(job: Job) -> list[list[PreparedPhoto]]:
    """Run the step and return the batches of its network."""
    batches: list[list[PreparedPhoto]] = []
    inputs = job.extractor.inputs

    def recorded(batch: list[PreparedPhoto]) -> Any:
        batches.append(list(batch))
        return inputs(batch)

    job.extractor.inputs = recorded
    try:
        end_to_end(job)
    finally:
        job.extractor.inputs = inputs
    return batches


def network_input(job: Job, batch: Sequence[PreparedPhoto]) -> list[torch.Tensor]:
    """Return the network's input at each scale."""
    made = job.extractor.inputs(batch)
    if isinstance(made, torch.Tensor):
        return [made]
    return [one[1] if isinstance(one, tuple) else one for one in made]


def bare(job: Job, batches: list[list[PreparedPhoto]]) -> float:
    """Return the seconds of the network alone over all batches."""
    with torch.inference_mode():
        return sum(
            timed(lambda group=group: [forward(job, images) for images in group], job.device)
            for group in groups(job, batches)
        )


def groups(job: Job, batches: list[list[PreparedPhoto]]) -> Iterator[list[list[torch.Tensor]]]:
    """Yield the inputs of so many batches as the device holds well."""
    group: list[list[torch.Tensor]] = []
    for batch in batches:
        group.append(network_input(job, batch))
        if sum(image.nbytes for images in group for image in images) > INPUT_BYTES[job.device.type]:
            yield group
            group = []
    if group:
        yield group


def forward(job: Job, images: list[torch.Tensor]) -> None:
    """Run the network over one batch at all scales, as the extractor does; the outputs are dropped."""
    if hasattr(job.extractor, "detect") and not hasattr(job.extractor, "forward"):
        job.extractor.detect(images[0])  # XFeat, ALIKED
    elif hasattr(job.extractor, "whitening"):
        largest = max(range(len(images)), key=lambda i: images[i].shape[-1])
        for place, image in enumerate(images):
            job.extractor.forward(image, regions=place == largest)
    else:
        for image in images:
            job.extractor.forward(image)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of some work, the device's included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def apart(job: Job, batches: list[list[PreparedPhoto]], decoders: int) -> dict[str, float]:
    """Return the seconds of each part of the work, each done for all photos and alone."""
    shards = range(job.images.shards)
    images = [data for shard in shards for data in usable(job.images, job.root, shard)]

    def decode() -> None:
        with ThreadPoolExecutor(decoders) as pool:
            list(pool.map(lambda data: job.extractor.prepare(decode_photo(data)) and None, images))

    dataset = job.step.dataset(job.root)
    tables = [dataset.read(shard) for shard in shards]
    copy = job.step.dataset(f"{job.root}-copy")
    with torch.inference_mode():
        transfer = timed(lambda: [network_input(job, batch) and None for batch in batches], job.device)
    return {
        "read": timed(lambda: [usable(job.images, job.root, shard) for shard in shards], job.device),
        "decode": timed(decode, job.device),
        "transfer": transfer,
        "write": timed(lambda: [copy.write(shard, rows) for shard, rows in enumerate(tables)], job.device),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=NETWORKS, default="xfeat")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=["auto", "float32", "float16", "bfloat16"], default="auto")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--photos-per-shard", type=int, default=1000, help="as a run on a million has")
    parser.add_argument("--side", type=int, default=1024, help="long side of the photos, pixels")
    parser.add_argument(
        "--scales", type=float, nargs="*", default=[], help="of GeM; the papers': 1 0.7071 0.5"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0]
        job = prepare(options, Path(folder))
        batches = batches_of(job)
        photos = sum(map(len, batches))
        ours, nets = [], []
        for _ in range(options.rounds):
            ours.append(end_to_end(job))
            nets.append(bare(job, batches))
        decoders = decoding_threads(job.extractor.needs_gpu)
        parts = apart(job, batches, decoders) | {"network": statistics.median(nets)}
        name = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "cpu"
        result = {
            "network": options.network,
            "weights": "random" if options.network in RANDOM else "real",
            "device": name,
            "precision": options.precision,
            "side_px": options.side,
            "photos": photos,
            "photos_per_batch": round(photos / len(batches), 1),
            "rounds": options.rounds,
            "threads": threads(),
            "decoding_threads": decoders,
            "cores": os.cpu_count(),
            "load": [round(load, 1), round(os.getloadavg()[0], 1)],
            "ms_per_photo": {part: round(1e3 * seconds / photos, 2) for part, seconds in parts.items()},
            "photos_per_second": round(photos / statistics.median(ours), 2),
            "bare_photos_per_second": round(photos / statistics.median(nets), 2),
            # Of each round by itself: what else the machine does disturbs both of a round alike.
            "ratio": round(statistics.median(n / o for o, n in zip(ours, nets, strict=True)), 3),
        }
    says = "random weights" if options.network in RANDOM else "real weights"
    print(f"{options.network} ({says}) on {name}, {photos} photos at {options.side} px")
    print(
        f"end to end {result['photos_per_second']} photos/s, bare {result['bare_photos_per_second']} photos/s"
    )
    print(
        ", ".join(f"{part} {ms} ms" for part, ms in result["ms_per_photo"].items()) + " per photo, each alone"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
