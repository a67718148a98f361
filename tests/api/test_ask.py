"""A photo that a finished run does not know gets the list that the workflow would give it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import lmr
from lmr.api.answers import shown_answer
from lmr.api.ask import PhotoSearch, open_search
from lmr.api.reopen import reopen
from lmr.errors import LmrError, PhotoError, StorageError
from lmr.runtime.settings import layer
from lmr.steps.ranking import read_ranking
from lmr.steps.results.folder.datasets import open_datasets, store_datasets
from lmr.storage.datasets import facts_of
from tests.support.world import lmr as command
from workflows.retrieval import PRESETS

STAGES = ("search", "verify", "rank", "expand", "diffuse")


@pytest.fixture(scope="module")
def asked(finished):
    return PhotoSearch(reopen(finished.root))


@pytest.fixture(scope="module")
def queries(world):
    return [path for path in sorted((world / "queries").iterdir()) if path.name != "cut.jpg"]


def test_every_stage_lists_what_the_workflow_lists(finished, asked, queries):
    rows = {path: row for row, path in enumerate(finished.photos("queries")["path"])}
    stored = {name: read_ranking(finished.datasets.rankings[name], 0) for name in STAGES}
    for path in queries:
        row = rows[path.name]
        for name, ranking in asked.rankings(path.read_bytes()).items():
            np.testing.assert_array_equal(ranking.photos[0], stored[name].photos[row], f"{path}, {name}")
            np.testing.assert_allclose(ranking.scores[0], stored[name].scores[row], rtol=1e-5)


def test_an_answer_says_what_the_run_says(finished, asked, queries, world):
    matches = finished.matches()
    answer = asked.ask(queries[0])
    right = matches[matches.query_path == queries[0].name]
    assert [one.path for one in answer.matches] == right.photo_path.tolist()
    assert [one.inliers for one in answer.matches] == right.inliers.tolist()
    assert [one.confident for one in answer.matches] == right.confident.tolist()
    assert [one.stage for one in answer.matches] == right.stage.tolist()
    assert answer.confident == right.confident.sum() > 0
    assert [one.rank for one in answer.matches] == list(range(1, len(right) + 1))
    described = {role: finished.descriptors(role).astype(np.float32) for role in ("gallery", "queries")}
    query = described["queries"][finished.photos("queries")["path"].tolist().index(queries[0].name)]
    for one in answer.matches:
        assert one.similarity == pytest.approx(float(described["gallery"][one.row] @ query), abs=2e-3)
        assert one.lines.shape == (one.inliers, 4)
        assert ((one.lines >= 0) & (one.lines <= 1)).all()


def test_a_photo_of_the_gallery_finds_itself(asked, world):
    photo = sorted((world / "gallery").iterdir())[1]
    best = asked.ask(photo, most=1).matches[0]
    assert (best.path, best.confident) == (photo.name, True)
    assert best.similarity == pytest.approx(1, abs=2e-3)
    # Its own features agree with themselves, point by point.
    assert np.abs(best.lines[:, :2] - best.lines[:, 2:]).max() < 0.02


def test_an_earlier_stage_can_be_asked(finished, queries):
    until = PhotoSearch(reopen(finished.root), "verify")
    assert list(until.rankings(queries[0].read_bytes())) == ["search", "verify"]
    with pytest.raises(LmrError, match="no such stage"):
        PhotoSearch(reopen(finished.root), "verfy")


def test_nothing_is_written_into_the_run(finished, asked, queries):
    import lmr.storage as storage

    before = {name: storage.size(storage.join(finished.root, name)) for name in storage.find(finished.root)}
    asked.ask(queries[1])
    after = {name: storage.size(storage.join(finished.root, name)) for name in storage.find(finished.root)}
    assert after == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"no photo at all", "not an image"), (None, "truncated JPEG")],
)
def test_a_photo_that_cannot_be_used_is_told(asked, world, content, reason):
    with pytest.raises(PhotoError, match=reason):
        asked.ask((world / "queries" / "cut.jpg").read_bytes() if content is None else content)


def test_a_photo_without_features_is_answered(asked):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 48), (120, 120, 120)).save(out, "PNG")
    answer = asked.ask(out.getvalue())
    assert not answer.confident
    assert all(one.inliers == 0 and one.similarity == 0 for one in answer.matches)


def test_what_has_to_be_searched_and_is_gone_is_named(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished.root, copy)
    index = next((copy / "index").iterdir())
    shutil.rmtree(index)
    with pytest.raises(LmrError, match="no longer holds all that is searched: index"):
        open_search(copy)
    with pytest.raises(StorageError, match="no finished run"):
        open_search(tmp_path / "nothing")


def test_code_that_a_run_names_runs_only_when_it_is_trusted(finished, tmp_path):
    copy, mark = tmp_path / "run", tmp_path / "ran"
    shutil.copytree(finished.root, copy)
    own = tmp_path / "retrieval.py"
    own.write_text(f"open({str(mark)!r}, 'w').close()\nfrom workflows.retrieval import PRESETS, build\n")
    run = open_datasets(str(copy))
    store_datasets(dataclasses.replace(run, about={**run.about, "workflow": str(own)}))
    with pytest.raises(LmrError, match="code of someone's own") as told:
        open_search(copy)
    assert not mark.exists()
    assert "--own-code" in told.value.fix
    assert open_search(copy, own_code=True).stages == STAGES
    assert mark.exists()


@pytest.mark.parametrize("name", PRESETS)
def test_settings_come_back_as_they_were(name):
    stored = json.loads(json.dumps(dataclasses.asdict(PRESETS[name])))
    assert layer(PRESETS["vlad"], stored) == PRESETS[name]


def test_the_public_face(finished, queries):
    assert lmr.open_search(finished.root).ask(str(queries[0]), most=2).matches[0].rank == 1


def test_an_answer_is_shown_with_pictures_and_lines(finished, asked, queries):
    answer = asked.ask(queries[0], most=4)
    shown = shown_answer(asked.run, queries[0].name, queries[0].read_bytes(), answer, "4 matches")
    assert [one.path for one in shown.matches] == [one.path for one in answer.matches]
    assert all(one.picture.startswith("data:image/jpeg;base64,") for one in shown.matches)
    assert [bool(one.lines) for one in shown.matches] == [bool(one.confident) for one in answer.matches]


def test_the_command_line(finished, queries, tmp_path):
    odd = tmp_path / "<b>=odd\x1b[31m.jpg"
    shutil.copy(queries[0], odd)
    page = tmp_path / "found.html"
    printed = command("search", finished.root, str(odd), "--most", "3", "--page", str(page))
    assert "3 matches" in printed
    assert "\x1b[31m.jpg" not in printed
    text = page.read_text()
    assert "&lt;b&gt;=odd\\x1b[31m.jpg" in text
    assert "<b>=odd" not in text
    assert text.count('<li class="found') == 3
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    with pytest.raises(LmrError, match="1 of 2 photos could not be searched for"):
        command("search", finished.root, str(bad), str(queries[0]))


def test_a_folder_is_told_as_one(finished, tmp_path):
    with pytest.raises(LmrError, match="1 of 1 photos"):
        command("search", finished.root, str(tmp_path), "--page", str(tmp_path / "page.html"))
    assert f"it is a folder: name the photos in it, such as {tmp_path}/*.jpg" in (
        tmp_path / "page.html"
    ).read_text().replace("&#39;", "'")


def test_a_search_keeps_the_fingerprints(finished, asked):
    """What the run is rebuilt as is what it is: every dataset of its gallery, by its own facts."""
    flow = asked.run.flow
    for source in (flow.images.gallery, flow.local.gallery.source, flow.described.gallery.source):
        dataset = source.dataset(finished.root)
        assert facts_of(dataset.shard_url(0))["fingerprint"] == source.parts[0].fingerprint
