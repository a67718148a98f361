"""EfficientNet-Lite0 with ONNX Runtime, with OpenCV and with torch: seconds per photo and core, in one run.

    python benchmarks/lite0.py [--photos 24] [--sizes 640 320]

Each describes the same development photos, decoded before, with one thread: shrinking, the network, pooling
over the photo and its regions. The three take turns photo by photo; the processor's own time is counted, so
that other processes matter less. Medians are compared, and so are the descriptors.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from _shared import shared

sys.path.insert(0, str(Path(__file__).parents[1]))

from lmr.features.decoding import decode_photo
from lmr.features.networks.gem import load_gem
from lmr.features.networks.lite0 import lite0_graph
from lmr.features.networks.onnx_extractor import OnnxExtractor
from lmr.features.networks.onnx_models import load_lite0
from lmr.features.networks.onnx_runtime import OpenCvNetwork
from lmr.features.weights.packaged import LITE0
from lmr.features.weights.state_dicts import read_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 320])
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = sorted((shared("data/landmarks") / "gallery").iterdir())
    chosen = files[:: max(1, len(files) // options.photos)][: options.photos]
    photos = [decode_photo(path.read_bytes()) for path in chosen]

    runtime = load_lite0(sizes_px=options.sizes)
    graph = partial(lite0_graph, read_state_dict(LITE0.path()))
    extractors = {
        "ONNX Runtime": runtime,
        "OpenCV": OnnxExtractor(OpenCvNetwork(graph), runtime.settings, name="opencv"),
        "torch": load_gem(
            LITE0.path(), architecture="efficientnet_lite0", input="half", sizes_px=options.sizes
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in extractors}
    furthest = dict.fromkeys(extractors, 0.0)
    for number, photo in enumerate([photos[0], *photos]):
        made = {}
        for name, extractor in extractors.items():
            started = time.process_time()
            made[name] = extractor([photo])[0]
            if number:  # the first only warms up
                seconds[name].append(time.process_time() - started)
        for name, features in made.items():
            apart = float(np.abs(features.regions - made["torch"].regions).max())
            furthest[name] = max(furthest[name], apart)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        faster = medians["torch"] / median
        print(f"{name:13} {median:.4f} s a photo and core, {faster:.2f} times torch's speed; ", end="")
        print(f"furthest number from torch's {furthest[name]:.1e}")
    print(json.dumps({"photos": len(photos), "sizes_px": options.sizes, "seconds": medians}))


if __name__ == "__main__":
    main()
