"""Results per settings: none is overwritten by the next; comparing tells what differs and shows it."""

import json

import numpy as np
import pytest

import lmr
from lmr.errors import LmrError, StorageError
from lmr.evaluation.pages import compare as compare_page
from lmr.evaluation.pages.compare import Changed, ComparisonPage, Difference, Side
from lmr.evaluation.pages.pictures import thumbnail
from lmr.evaluation.pages.recognition import Photo
from lmr.evaluation.statistics import compare
from lmr.steps.results.compare import compare_results, opened
from lmr.steps.results.folder.contents import contents
from lmr.steps.results.folder.kept import RESULTS, kept_digests, open_kept
from tests.support.browser import browser, needs_browser
from tests.support.descriptor_clusters import clusters
from tests.support.small_run import jpeg
from tests.support.world import lmr as command_line

GALLERY, QUERIES = [f"g{i:03d}" for i in range(90)], [f"q{i}" for i in range(6)]


def run(out, solution, **settings):
    gallery = clusters(len(GALLERY), 16, seed=2, noise=0.3)
    rng = np.random.default_rng(5)
    return lmr.run_workflow(
        "descriptors",
        gallery_descriptors=gallery,
        gallery_ids=GALLERY,
        query_descriptors=gallery[:6] + 0.2 * rng.standard_normal((6, 16)),
        query_ids=QUERIES,
        solution=solution,
        settings=settings,
        out=out,
        workers=0,
        progress=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One folder with two settings, and another with one of them."""
    folder = tmp_path_factory.mktemp("kept")
    lines = [f"{q},{GALLERY[i]} {GALLERY[i + 6]}" for i, q in enumerate(QUERIES)]
    (folder / "solution.csv").write_text("\n".join(["id,images", *lines, ""]))
    solution = folder / "solution.csv"
    run(folder / "one", solution)
    first = (folder / "one" / "submission.csv").read_bytes()
    run(folder / "one", solution, **{"augment.neighbours": 0, "diffuse.method": "none"})
    run(folder / "two", solution, **{"augment.neighbours": 0, "diffuse.method": "none"})
    return folder, first


def test_no_result_is_given_the_scores_of_another(runs, tmp_path):
    folder, _ = runs
    root = tmp_path / "run"
    run(root, folder / "solution.csv")
    (scored,) = kept_digests(str(root))
    run(root, None, **{"augment.neighbours": 0})
    latest, before = kept_digests(str(root))
    assert before == scored
    assert not (root / "scores.json").exists()  # the run before's is kept there:
    assert (root / RESULTS / before / "scores.json").exists()
    assert not (root / RESULTS / latest / "scores.json").exists()


def test_results_of_other_settings_stay_and_the_folder_has_the_latest(runs):
    folder, first = runs
    root = folder / "one"
    latest, before = kept_digests(str(root))
    assert (root / RESULTS / "latest").read_text() == f"{latest}\n"
    for file in ("submission.csv", "scores.json"):
        assert (root / file).read_bytes() == (root / RESULTS / latest / file).read_bytes()
    assert (root / RESULTS / before / "submission.csv").read_bytes() == first
    kept = lmr.open_run(root, kept=before)
    assert kept.settings["augment"]["neighbours"] != 0
    assert kept.scores == pytest.approx(
        {
            k: v
            for k, v in json.loads((root / RESULTS / before / "scores.json").read_text()).items()
            if k != "protocol"
        }
    )
    assert lmr.open_run(root).settings["augment"]["neighbours"] == 0
    with pytest.raises(StorageError, match="no results of these settings"):
        open_kept(str(root), "0" * 12)


def test_the_same_settings_again_are_the_same_results(runs):
    folder, _ = runs
    before = kept_digests(str(folder / "two"))
    run(folder / "two", folder / "solution.csv", **{"augment.neighbours": 0, "diffuse.method": "none"})
    assert kept_digests(str(folder / "two")) == before
    assert len(before) == 1
    assert before[0] == kept_digests(str(folder / "one"))[0]


def test_no_dataset_is_seen_in_kept_results(runs):
    folder, _ = runs
    assert RESULTS not in {one.folder for one in contents(str(folder / "one"))}


def test_settings_of_one_run_are_compared_query_by_query(runs):
    folder, _ = runs
    found = compare_results(opened([str(folder / "one")]))
    assert set(found.settings) == {"augment.neighbours", "diffuse.method"}
    assert found.settings["augment.neighbours"][0] == "0"
    (difference,) = found.differences.values()
    scores = [list(side.scores.values()) for side in found.sides]
    assert difference.difference.value == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    assert difference.won + difference.lost + difference.tied == 6
    assert found.means == pytest.approx([np.mean(one) for one in scores])


def test_the_command_prints_and_writes_a_page(runs):
    folder, _ = runs
    told = command_line("compare", str(folder / "one"), str(folder / "two"), "--page", str(folder / "page"))
    assert "two: +0.0000 against one" in told
    assert "0 better, 0 worse, 6 equal" in told
    told = command_line("compare", str(folder / "one"))
    assert "augment.neighbours" in told
    page = (folder / "one" / "compare" / "index.html").read_text()
    assert "augment.neighbours" in page
    assert "Won" in page or "Lost" in page


def test_what_cannot_be_compared_is_told(runs, tmp_path):
    folder, _ = runs
    with pytest.raises(LmrError, match="keeps no results"):
        opened([str(tmp_path)])
    with pytest.raises(LmrError, match="nothing to compare with"):
        opened([str(folder / "two")])
    run(tmp_path / "unscored", None)
    found = compare_results(opened([str(folder / "two"), str(tmp_path / "unscored")]))
    assert not found.differences
    assert found.notices == ["unscored has no scores, for want of a solution: settings are compared only"]
    assert np.isnan(found.means[1])


def test_runs_without_a_solution_are_compared_by_their_settings_and_say_so(tmp_path):
    run(tmp_path / "one", None)
    run(tmp_path / "two", None, **{"augment.neighbours": 0})
    told = command_line("compare", str(tmp_path / "one"), str(tmp_path / "two"))
    assert "augment.neighbours" in told
    assert "two and one have no scores, for want of a solution: settings are compared only" in told
    assert "mAP@100" not in told
    assert "in common" not in told


def test_what_is_kept_nowhere_else_is_renamed(tmp_path):
    run(tmp_path, None)
    (tmp_path / "scores.json").write_text('{"rank": 0.5}')  # as an lmr of before left it
    run(tmp_path, None, **{"augment.neighbours": 0})
    assert not (tmp_path / "scores.json").exists()
    assert (tmp_path / "earlier-scores.json").read_text() == '{"rank": 0.5}'
    (tmp_path / "scores.json").write_text('{"rank": 0.7}')  # and once more
    run(tmp_path, None)
    found = [path.read_text() for path in sorted(tmp_path.glob("earlier-*scores.json"))]
    assert sorted(found) == ['{"rank": 0.5}', '{"rank": 0.7}']


def example_page():
    hostile = "<script>document.title='owned'</script>\x1b[31m"
    pixel = thumbnail(jpeg(90), 64)
    photo = Photo(name=hostile, picture=pixel)
    changed = Changed(query=photo, gain=0.5, before=[photo], after=[photo, photo], says_after=hostile)
    comparison = compare(np.array([1.0, 0.5]), np.array([0.5, 0.5]))
    return ComparisonPage(
        title=hostile,
        measure="mAP@100",
        names=["verify.min_inliers"],
        sides=[Side(name="one", score=0.5, settings=["10"]), Side(name=hostile, score=None, settings=["40"])],
        differences=[Difference(name=hostile, comparison=comparison, won=[changed], lost=[])],
    )


def test_names_are_text_on_the_page():
    text = compare_page.render_comparison(example_page())
    assert "<script" not in text
    assert "\x1b" not in text
    assert "http" not in text.replace("http-equiv", "")


@needs_browser
@pytest.mark.slow
@pytest.mark.system
def test_the_page_is_seen_in_a_browser(tmp_path):
    (tmp_path / "index.html").write_text(compare_page.render_comparison(example_page()))
    with browser(tmp_path / "profile") as window:
        window.open(f"file://{tmp_path}/index.html")
        assert window.run("return document.querySelectorAll('.strip img').length") == 3
        assert window.run("return [...document.images].every(one => one.naturalWidth > 0)")
        assert window.run("return document.title").endswith("comparison · lmr")
