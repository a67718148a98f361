"""A finished run written by hand: three queries, five gallery photos, two stages; no step has run."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from lmr import storage
from lmr.steps.both import Both
from lmr.steps.photos.listing import Layout
from lmr.steps.ranking import Ranking
from lmr.steps.results.folder.datasets import RunDatasets, store_datasets
from lmr.storage.arrow import Ragged, table
from lmr.storage.datasets import Dataset

GALLERY = ["g0.jpg", "a/=cmd().jpg", "b/<b>g2.jpg", "c/g3.jpg", "g4.jpg"]
QUERIES = ["=q0.jpg", "sub/q1.jpg", "q2.jpg"]


def jpeg(shade):
    out = io.BytesIO()
    Image.new("RGB", (80, 60), (shade, 90, 120)).save(out, "JPEG")
    return out.getvalue()


def small_run(root, *, verified=True, about=None):
    """Write the run's datasets into a folder, and return them; query 2 could not be read.

    Query 0 lists photos 3, 1, 0 at last, of which the first two are confident matches; query 1 lists 4, 2.
    """
    root = str(root)

    def dataset(folder, step, rows, shards=1):
        fingerprint = f"{sum(map(ord, folder)):012x}"
        made = Dataset(storage.join(root, folder, fingerprint), step, fingerprint, shards)
        for shard, one in enumerate(rows if shards > 1 else [rows]):
            made.write(shard, one)
        return made

    def listing(role, paths):
        ids = [path.rsplit("/", 1)[-1].removesuffix(".jpg") for path in paths]
        rows = pa.table({"photo": np.arange(len(paths), dtype=np.int32), "id": ids, "path": paths})
        return dataset(f"photos/{role}", f"photos_{role}", rows)

    def images(role, step, count):
        contents = [jpeg(40 * i) for i in range(count)]
        if role == "queries":
            contents[2] = b""
        size = {"width": np.full(count, 80, np.int32), "height": np.full(count, 60, np.int32)}
        rows = table({"image": pa.array(contents, pa.large_binary()), **size})
        return dataset(f"images/{role}", step, rows)

    def ranking(folder, step, photos, **more):
        photos = np.array(photos, np.int32)
        rows = Ranking(
            np.arange(len(photos), dtype=np.int32),
            photos,
            np.linspace(1, 0, photos.size, dtype=np.float32).reshape(photos.shape),
        )
        return dataset(folder, step, rows.table(**more))

    first = ranking("candidates", "search", [[0, 1, 3], [2, -1, -1], [-1, -1, -1]])
    inliers = np.array([[50, 20, 4], [3, 0, 0], [0, 0, 0]], np.int32)
    counts = np.array([2, 0, 0], np.int32)
    second = ranking(
        "verified", "rerank", [[3, 1, 0], [2, -1, -1], [-1, -1, -1]], inliers=inliers, confident=counts
    )
    final = ranking("final", "diffuse", [[3, 1, 0], [4, 2, -1], [-1, -1, -1]])
    stages = {"search": first, **({"verify": second} if verified else {}), "diffuse": final}
    ingest = Both(images("gallery", "ingest", 5), images("queries", "ingest_queries", 3))
    # Two inliers between query 0 and photo 3: features 0 and 2 of either.
    found = Ragged(np.array([[0, 0], [2, 2]], np.uint16), np.array([0, 2, 2]))
    pairs = {"query": np.array([0, 1], np.int32), "photo": np.array([3, 2], np.int32), "matches": found}

    def features(role, count):
        xy = np.tile(np.array([[8, 6], [40, 30], [72, 54]], np.float32), (count, 1))
        owners = np.repeat(np.arange(count, dtype=np.int32), 3)
        return dataset(f"local/{role}", "extract_local", table({"photo": owners, "xy": xy}))

    unusable = pa.table(
        {"set": ["queries"], "photo": pa.array([2], pa.int32()), "reason": ["truncated JPEG"]}
    )
    lists = pa.table({"id": ["=q0", "q1", "q2"], "images": [["g3", "=cmd()", "g0"], ["g4", "<b>g2"], []]})
    run = RunDatasets(
        root=root,
        photos=Both(listing("gallery", GALLERY), listing("queries", QUERIES)),
        images=ingest,
        layouts=Both(Layout((0,), 5), Layout((0,), 3)),
        rankings=stages,
        labels={
            "search": "1 local search",
            "verify": "2 spatial verification",
            "diffuse": "5 regional diffusion",
        },
        submission=dataset("submission", "submit", lists),
        unusable=dataset("unusable", "check_photos", unusable),
        steps=(*stages.values(), ingest.gallery, ingest.queries),
        settings={"verify": {"min_inliers": 10}},
        verified="verify" if verified else None,
        pairs=dataset("pairs", "verify", table(pairs)) if verified else None,
        local=Both(features("gallery", 5), features("queries", 3)),
        about=about or {},
    )
    store_datasets(run)
    return run
