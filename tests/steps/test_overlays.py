"""Overlays in a run: found from the gallery, left out of the search and of the verification."""

import io

import numpy as np
from PIL import Image

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.ranking import read_ranking
from lmr.storage.arrow import column
from tests.steps.test_fingerprints import photos
from tests.support.overlays import caption, noise_photo
from workflows.retrieval import PRESETS, build

SMALL = {"ingest": {"photos_per_shard": 8}, "local": {"max_features": 250}, "search": {"candidates": 10}}
FIND = {"overlays": {"find": True, "least_share": 0.2}, "verify": {"frame_side_px": 320}}


def write(folder, photos):
    folder.mkdir()
    for number, photo in enumerate(photos):
        out = io.BytesIO()
        Image.fromarray(photo).save(out, "PNG")
        (folder / f"{number:02d}.png").write_bytes(out.getvalue())
    return str(folder)


def test_captions_neither_vote_nor_match(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [noise_photo(rng, 320, 240) for _ in range(17)]
    for photo in drawn[:9]:
        caption(photo)
    # The query bears the caption, and shows what photo 16 shows.
    query = drawn[16].copy()
    caption(query)
    gallery, queries = write(tmp_path / "gallery", drawn), write(tmp_path / "queries", [query])
    inputs = Inputs(photos=Both(list_photos("gallery", gallery), list_photos("queries", queries)))

    def found(*changes):
        flow = build(inputs, layer(PRESETS["vlad"], SMALL, *changes))
        assert flow.verified is not None
        pairs = flow.verified.pairs
        run([pairs, flow.rankings["search"].step], str(tmp_path / "run"))
        votes = read_ranking(flow.rankings["search"].step.dataset(str(tmp_path / "run")), 0)
        rows = [pairs.dataset(str(tmp_path / "run")).read(i) for i in range(pairs.shards)]
        inliers = {
            photo: count
            for part in rows
            for photo, count in zip(column(part, "photo"), column(part, "inliers"), strict=True)
        }
        return dict(zip(votes.photos[0].tolist(), votes.scores[0].tolist(), strict=True)), inliers

    counting_all = {"verify": {"evidence": False}}
    votes, inliers = found({"verify": {"frame_side_px": 320}}, counting_all)
    captioned = [photo for photo in range(9) if photo in votes]
    assert min(inliers[photo] for photo in captioned) > 10
    _, left = found(FIND, counting_all)
    assert max(left.get(photo, 0) for photo in range(9)) <= 10  # no confident match
    assert left[16] > 50


def test_runs_without_it_stay_valid_and_its_frame_is_that_of_verification():
    inputs = Inputs(photos=Both(photos("gallery", 300), photos("queries", 40)))

    def steps(*changes):
        return {step.name: step for step in closure(build(inputs, layer(PRESETS["vlad"], *changes)).targets)}

    plain, off, on = steps(), steps({"overlays": {"sample_photos": 50}}), steps({"overlays": {"find": True}})
    assert {n: s.fingerprint for n, s in plain.items()} == {n: s.fingerprint for n, s in off.items()}
    assert on["search"].fingerprint != plain["search"].fingerprint
    wide = steps({"overlays": {"find": True}, "verify": {"frame_side_px": 400}})
    assert wide["find_overlays"].fingerprint != on["find_overlays"].fingerprint
