"""A published data set from its archive to its row among published figures, on one made with its layout."""

import csv
import json
import pickle

import numpy as np
import pytest

from lmr.evaluation.protocols.oxford import parse_truths
from lmr.testing import World, write_world
from tests.support.published import hosted, tar_of
from tests.support.world import lmr

SMALL = World(
    landmarks=4,
    gallery_per_landmark=(4, 6),
    queries=6,
    distractors=10,
    queries_without_landmark=0,
    long_side_px=320,
    seed=5,
)


def layout_of(world):
    """The files of revisited Oxford, as their publisher has them, of a rendered world; queries have boxes."""
    folder = {
        "gallery": sorted((world / "gallery").iterdir()),
        "queries": sorted((world / "queries").iterdir()),
    }
    names = {side: [path.stem for path in paths] for side, paths in folder.items()}
    with (world / "solution.csv").open() as file:
        solution = {row["id"]: row["images"].split() for row in csv.DictReader(file)}
    row_of = {name: row for row, name in enumerate(names["gallery"])}
    gnd = []
    for query in names["queries"]:
        right = [row_of[one] for one in solution[query]]
        junk = [row for row in range(3) if row not in right]
        gnd.append(
            {
                "bbx": [4.0, 4.0, 300.0, 200.0],
                "easy": np.array(right[1:], np.int64),
                "hard": np.array(right[:1], np.int64),
                "junk": np.array(junk, np.int64),
            }
        )
    truth = {"imlist": names["gallery"], "qimlist": names["queries"], "gnd": gnd}
    photos = {path.name: path.read_bytes() for paths in folder.values() for path in paths}
    return {
        "oxbuild_images-v1.tgz": tar_of(photos, "w:gz"),
        "gnd_roxford5k.pkl": pickle.dumps(truth, 4),
    }


@pytest.mark.slow
def test_a_known_data_set_ends_beside_published_figures(tmp_path):
    write_world(SMALL, tmp_path / "world")
    data, root = tmp_path / "data", tmp_path / "run"
    with hosted(layout_of(tmp_path / "world")) as host:
        lmr("dataset", "fetch", "roxford5k", "--data", str(data), "--from", host.url)
    told = lmr(
        "run",
        "retrieval",
        "--dataset",
        "roxford5k",
        "--data",
        str(data),
        "--out",
        str(root),
        "--workers",
        "0",
    )
    assert "beside published figures, mAP in percent" in told
    assert "this run" in told
    assert "DELF-ASMK*+SP" in told
    assert "Cao et al." in told  # a narrow terminal breaks what follows
    scores = json.loads((root / "protocols.json").read_text())
    assert [*scores] == ["revisited-easy", "revisited-medium", "revisited-hard"]
    page = (root / "report" / "index.html").read_text()
    assert "Revaud et al., ICCV 2019" in page
    assert "Cao et al., ECCV 2020, Table 3" in page

    # The queries are cut to their boxes, and junk counts neither way: `lmr evaluate` finds the same scores,
    # since the whole gallery fits into a submission.
    truth = data / "revisited-oxford" / "truth.csv"
    assert any(one["junk"] for one in parse_truths(truth.read_bytes(), needs=("easy", "hard")).values())
    for protocol in scores:
        said = lmr(
            *("evaluate", str(root / "submission.csv"), "--solution", str(truth), "--protocol", protocol),
            "--json",
        )
        found = json.loads(said)
        for metric, stages in scores[protocol].items():
            assert found["metrics"][metric]["score"] == pytest.approx(stages["diffuse"]), metric
