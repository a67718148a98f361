"""`lmr report`, `lmr matches`, `lmr info` and `lmr clean` on a run written by hand."""

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lmr.cli.options.workflow import show_results, show_results_in
from lmr.errors import LmrError, StorageError
from lmr.steps.results.matches.matches import store_matches
from lmr.storage.datasets import Dataset
from tests.support.small_run import small_run
from tests.support.world import lmr


@pytest.fixture
def run(tmp_path):
    return small_run(
        tmp_path / "run",
        about={"workflow": "retrieval", "preset": "vlad", "preset_settings": {"verify": {"min_inliers": 20}}},
    )


def test_matches_are_told_and_copied(run, tmp_path):
    printed = lmr("matches", run.root, "--most", "2", "--copy", str(tmp_path / "found"))
    assert (
        "=q0.jpg: 3 matches, 2 of them confident\nsub/q1.jpg: 2 matches, none of them confident\n" in printed
    )
    assert "and 1 more in the report" in printed
    assert f"2 confident matches of 1 query copied to {tmp_path / 'found'}" in printed
    assert (tmp_path / "found" / "=q0" / "001_g3.jpg").is_file()
    with pytest.raises(LmrError, match="--links needs the folder to fill"):
        lmr("matches", run.root, "--links")


def test_the_report_is_written_and_named(run):
    printed = lmr("report", run.root)
    assert printed.strip() == f"{run.root}/report/index.html"
    html = Path(printed.strip()).read_text()
    assert "min_inliers</dt><dd>10 <small>preset: 20" in html
    with pytest.raises(StorageError, match="no finished run here") as told:
        lmr("report", run.root + "-none")
    assert "--out" in told.value.fix


def test_info_tells_what_the_folder_holds(run):
    printed = lmr("info", run.root)
    for expected in (
        "workflow  retrieval",
        "gallery   5 photos",
        "queries   3 photos",
        "settings  verify.min_inliers=10",
        "stage     1 local search: finished",
        "latest",
    ):
        assert expected in printed
    shutil.rmtree(run.rankings["diffuse"].url)
    assert "5 regional diffusion: 0 of 1 shard" in lmr("info", run.root)


def test_a_run_of_two_sources_says_so_wherever_it_is_told_of(run):
    """Steps of one source each are none the better for it: the results depend on both."""

    def made_by(**sources):
        for name, source in sources.items():
            run.rankings[name].write(0, run.rankings[name].read(0), source=source)
        lmr("report", run.root)
        page = Path(run.root, "report", "index.html").read_text()
        shown = Console(file=io.StringIO(), width=60)
        show_results_in(run.root, shown)
        return page, shown.file.getvalue(), lmr("info", run.root)

    sentence = "the run's shards come from 2 sources of lmr: aaa (2), bbb (1)"
    page, ended, info = made_by(search="aaa", verify="bbb", diffuse="aaa")
    # The page is HTML, in which an apostrophe is another text.
    assert sentence.partition("run's ")[2] in page
    # What `lmr run`, `watch` and `status` end with.
    assert sentence in ended
    assert f"code      {sentence}" in info
    # Made again by one source, it is as any other.
    for told in made_by(verify="aaa"):
        assert "sources of lmr" not in told


def test_clean_shows_asks_and_deletes(run):
    old = Path(run.root) / "final" / ("0" * 12)
    Dataset(str(old), "diffuse", "0" * 12, 1).write(0, run.rankings["diffuse"].read(0))
    foreign = Path(run.root) / "final" / ("1" * 12)
    shutil.copytree(old, foreign)
    with pytest.raises(LmrError, match="nobody is there to ask") as told:
        lmr("clean", run.root, "--keep", "latest")
    assert old.exists()
    assert "--yes" in told.value.fix
    printed = lmr("clean", run.root, "--keep", "latest", "--yes")
    assert f"left alone: {foreign}" in printed
    assert re.search(r"final/0{12}", printed)
    assert not old.exists()
    assert foreign.exists()
    assert run.rankings["diffuse"].present()


def test_the_end_of_a_run_names_the_files_of_matches_however_many(run):
    store_matches(run, most_rows=3)
    console = Console(file=io.StringIO(), width=200)
    show_results(run, console)
    told = f"matches    {run.root}/matches-00000.csv to {run.root}/matches-00001.csv\n"
    assert told in console.file.getvalue()
