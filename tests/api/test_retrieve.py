"""`lmr.retrieve`: where it runs, what it takes, what it refuses."""

import io
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

import lmr
from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.cluster.commands import worker_command
from lmr.errors import ClusterError, LmrError, SettingsError, StorageError
from lmr.scheduler.run import run as run_steps
from tests.api.conftest import SMALL
from tests.support.clusters import cluster
from tests.support.servers import said, scheduler, started
from tests.support.toys import workflow as toy
from tests.support.world import lmr as command_line
from tests.support.world import submission


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run without what is made of step 5: quick to go on with."""
    out = tmp_path / "run"
    shutil.copytree(finished.root, out)
    shutil.rmtree(out / "final")
    return out


def again(world, out, **more):
    here = {"workers": 0, "progress": False}
    chosen = {"solution": world / "solution.csv", "settings": SMALL, "descriptor": "vlad", **here, **more}
    return lmr.retrieve(world / "gallery", world / "queries", out, **chosen)


def test_the_same_call_goes_on_where_it_stopped(world, finished, copied):
    results = again(world, copied)
    assert results.matches().equals(finished.matches())
    assert results.scores == finished.scores


def test_a_changed_setting_makes_only_what_depends_on_it(world, finished, copied):
    again(world, copied)
    other = again(world, copied, settings={"ingest": {"photos_per_shard": 10}, "expand.top": 1})
    assert other.settings["expand"]["top"] == 1
    assert not other.ranking("expand").equals(finished.ranking("expand"))
    assert other.ranking("rank").equals(finished.ranking("rank"))
    assert len(list((copied / "ranked").iterdir())) == 1


SPELLINGS = [
    {"verify": {"min_inliers": 20}, "ingest": {"photos_per_shard": 10}},
    {"verify.min_inliers": 20, "ingest.photos_per_shard": 10},
    {"verify": {}, "verify.min_inliers": 20, "ingest": {"photos_per_shard": 10}},
]


@pytest.mark.parametrize("settings", SPELLINGS, ids=["by step", "by name", "mixed"])
def test_settings_have_two_spellings(world, copied, settings):
    found = again(world, copied, settings=settings).settings
    assert found["verify"]["min_inliers"] == 20
    assert found["ingest"]["photos_per_shard"] == 10


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_text_or_paths_everywhere(world, finished, copied, tmp_path, kind):
    (tmp_path / "s.toml").write_text("[ingest]\nphotos_per_shard = 10\n")
    results = lmr.run_workflow(
        kind("workflows/retrieval.py"),
        gallery=kind(world / "gallery"),
        queries=kind(world / "queries"),
        out=kind(copied),
        solution=kind(world / "solution.csv"),
        config=kind(tmp_path / "s.toml"),
        descriptor="vlad",
        workers=0,
        progress=False,
    )
    assert results.root == str(copied)
    assert results.scores == finished.scores


REFUSED = {
    "a choice": ({"colour": "red"}, SettingsError, "no such choice", "colour"),
    "a step": ({"settings": {"verfy": {}}}, SettingsError, "unknown group", "verfy"),
    "a field": ({"settings": {"verify.inliers": 3}}, SettingsError, "unknown setting verify.inliers", None),
    "a field of none": ({"settings": {"verify": 3}}, SettingsError, "names no field", "3"),
    "a value": ({"settings": {"rank.depth": "deep"}}, SettingsError, "rank.depth is not valid", "'deep'"),
    "a preset": ({"preset": "best"}, SettingsError, "unknown preset", "best"),
    "a descriptor": ({"descriptor": "hog"}, LmrError, "no such global descriptor", "hog"),
    "a file": ({"solution": Path("absent.csv")}, StorageError, "absent.csv", None),
    "settings": ({"config": Path("absent.toml")}, StorageError, "absent.toml", None),
    "certificates": ({"scheduler": "tls://127.0.0.1:1", "workers": None}, ClusterError, "certificate", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_a_clear_error_before_any_work(world, tmp_path, case):
    more, kind, what, got = REFUSED[case]
    with pytest.raises(kind, match=what) as told:
        again(world, tmp_path / "run", **more)
    assert isinstance(told.value, lmr.LmrError)
    assert told.value.fix
    if got:
        assert told.value.got == got
    assert not (tmp_path / "run" / "images").exists()


def test_a_missing_folder_and_a_missing_workflow_are_told(world, tmp_path):
    with pytest.raises(StorageError, match="the folder of the gallery does not exist"):
        lmr.retrieve(tmp_path / "absent", world / "queries", tmp_path / "run")
    with pytest.raises(LmrError, match="no such workflow") as told:
        lmr.run_workflow("retreival", gallery=world, queries=world, out=tmp_path / "run")
    assert "descriptors, recognition, retrieval" in told.value.fix


@pytest.mark.cluster
def test_on_a_scheduler(world, finished, copied, tmp_path):
    with cluster(tmp_path / "cluster", workers=1) as made:
        results = again(world, copied, scheduler=made.address, workers=None)
    assert results.matches().equals(finished.matches())
    assert (copied / "run.json").exists()  # made by the cluster, not by this process


@pytest.mark.cluster
def test_on_a_scheduler_with_certificates(world, finished, copied, tmp_path):
    certs = tmp_path / "certs"
    command_line("cluster", "certs", str(certs))
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(tmp_path, certs))
        assert address.startswith("tls://")
        log = tmp_path / "worker.log"
        stack.enter_context(started(worker_command(address, tls=str(certs), workers=1), log))
        said(log, "Registered to")
        results = again(world, copied, scheduler=address, tls=certs, workers=None)
    assert results.matches().equals(finished.matches())


@pytest.mark.cluster
def test_on_processes_of_this_machine(world, finished, copied):
    assert again(world, copied, workers=1).matches().equals(finished.matches())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_on_s3_is_opened_there(finished, moto_s3):
    import s3fs

    s3fs.S3FileSystem().put(finished.root, moto_s3, recursive=True)
    opened = lmr.open_run(moto_s3)
    assert opened.matches().equals(finished.matches())
    assert opened.scores == finished.scores
    assert opened.unusable().equals(finished.unusable())
    assert opened.report() == f"{moto_s3}/report/index.html"
    with pytest.raises(StorageError, match="no finished run here"):
        lmr.open_run("s3://photos/other")


def test_steps_run_without_a_listener(tmp_path):
    report = run_steps([toy(tmp_path / "calls")[-1]], str(tmp_path / "run"))
    assert [(s.step, s.made) for s in report.summaries] == [("numbers", 4), ("scaled", 4), ("total", 1)]


def test_bars_in_a_terminal(tmp_path):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with ProgressBars(console) as bars:
        run_steps([toy(tmp_path / "calls")[-1]], str(tmp_path / "run"), Where(), bars)
    shown = screen.getvalue()
    assert "numbers" in shown
    assert "4/4" in shown
    assert "\x1b[" in shown  # redrawn in place
    assert "runs in this process, no dashboard" in shown


def test_no_bars_where_none_are_wanted(world, copied, capsys):
    again(world, copied)
    assert capsys.readouterr() == ("", "")


def test_a_program_needs_three_lines(world, copied):
    code = (
        "import lmr\n"
        f"run = lmr.retrieve({str(world / 'gallery')!r}, {str(world / 'queries')!r}, {str(copied)!r},"
        " workers=0, settings={'ingest.photos_per_shard': 10}, descriptor='vlad')\n"
        "print(run.matches().to_csv())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "query,query_path,rank,photo" in done.stdout
    lists = submission(copied)
    assert done.stdout.count("\n") > sum(map(len, lists.values()))
