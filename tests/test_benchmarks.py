"""Benchmarks start, say what they do, and end as they promise; what they compute beyond lmr is checked."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("_"))


def start(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, FOLDER / script, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | environment,
    )


# What nearly all of them import. A process that has it is forked for each script, so libraries load once.
PRELOADED = ["lmr.api.progress", "lmr.api.retrieve", "lmr.scheduler.run", "workflows.retrieval"]


def help_of(script, said):
    """Start a benchmark for its help, as a script; runs in a process of its own."""
    sys.path.insert(0, str(FOLDER))
    sys.argv = [script, "--help"]
    with said.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    os._exit(1)  # the parser ends the process, with 0


@pytest.fixture(scope="module")
def forks():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_says_what_it_is(script, forks, tmp_path):
    said = tmp_path / "said"
    process = forks.Process(target=help_of, args=(script, said))
    process.start()
    process.join(240)
    usage, _, description = said.read_text().partition("\n\n")
    assert process.exitcode == 0, said.read_text()
    assert usage.startswith(f"usage: {script}")
    assert len(description) > 80


def test_without_the_shared_data_a_benchmark_is_skipped_in_so_many_words(tmp_path):
    done = start("local_features.py", LMR_SHARED=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said, last = done.stdout.splitlines()
    assert said.startswith("skipped")
    assert not (tmp_path / json.loads(last)["skipped"]).exists()


@pytest.fixture
def local_features(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import local_features

    return local_features


def test_pairs_are_spread_over_landmarks_and_different_ones_differ(local_features):
    landmarks = {
        name: [Path(f"{name}{i}") for i in range(n)] for name, n in zip("abc", (2, 3, 9), strict=True)
    }
    same, different = local_features.choose_pairs(landmarks, 100, np.random.default_rng(3))
    names = [a.name[0] for a, b in same]
    assert all(a.name[0] == b.name[0] and a != b for a, b in same)
    assert len(set(same)) == len(same)
    assert {name: names.count(name) for name in "abc"} == {"a": 1, "b": 3, "c": 4}
    assert set(names[:3]) == set("abc")
    assert len(different) == len(same)
    assert all(a.name[0] != b.name[0] for a, b in different)
    assert {path for pair in different for path in pair} <= {path for pair in same for path in pair}
    assert local_features.choose_pairs(landmarks, 100, np.random.default_rng(3)) == (same, different)


@pytest.mark.parametrize(
    ("same", "different", "expected", "auc"),
    [
        ([5, 9, 30], [4, 5, 2], (5, 2 / 3), 8.5 / 9),
        ([5, 9, 30], [0, 0, 0], (0, 1.0), 1.0),
        ([3, 3], [3, 8], None, 0.25),
        ([0, 0], [0, 0], None, 0.5),
        ([9] * 198, [1, 1, 20], (1, 1.0), 2 / 3),  # one wrong in 199 is precise enough
    ],
)
def test_the_least_precise_threshold_and_the_separation(local_features, same, different, expected, auc):
    counts = np.array(same), np.array(different)
    assert local_features.best_threshold(*counts) == expected
    assert local_features.separation(*counts) == pytest.approx(auc)


@pytest.mark.slow
def test_the_rehearsal_makes_tasks_of_every_step_and_projects_the_contest_from_them(tmp_path):
    small = ("--small", "--no-growth", "--rendered", "8", "--long-side-px", "320", "--out", str(tmp_path))
    done = start("rehearsal.py", *small)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["sample"] == {"gallery": 400, "queries": 40, "features": 100}
    assert line["over_their_statement"] == []
    measured, projected = line["measured"], line["projected"]
    # Of every step of the workflow, and what the closing task writes.
    assert measured.keys() >= {n.removesuffix("_queries") for n in projected["core_hours"]}
    assert measured.keys() >= {"submission.csv", "report"}
    lines = (tmp_path / "400-closing/submission.csv").read_text().splitlines()
    assert len(lines) == 1 + 40
    # Ten million pairs: a hundred for each of a hundred thousand queries.
    hours = measured["verify"]["cpu_per_unit"] * 1e7 / 3600
    assert projected["core_hours"]["verify"] == pytest.approx(hours)
    assert projected["unknown"] == []
    assert projected["all_core_hours"] == pytest.approx(sum(projected["core_hours"].values()))
    assert projected["hours_at_worst"] == pytest.approx(2 * projected["hours"])


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_to_its_end_on_cpus():
    done = start("gpu.py", "--device", "cpu", "--small", "--parts", "search", "knn", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert len(line["search"]) == 4
    assert all(one["same"] for one in line["search"])
    assert line["knn"][0]["done"] == line["knn"][0]["photos"] == 5_000


@pytest.fixture
def law(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _rehearsal_law

    return _rehearsal_law


def test_the_law_of_growth_is_the_slope_between_logarithms(law):
    sizes = [1e4, 1e5, 1e6]
    assert law.exponent(sizes, [3.0, 3.0 * 10**0.5, 30.0]) == pytest.approx(0.5)
    assert law.told(dict(zip(sizes, [1.0, 1.0, 1.01], strict=True))) == "none"
    assert law.told(dict(zip(sizes, [1.0, 2.0, 4.0], strict=True))) == "n^0.30"
    assert law.told({1e6: 1.0}) == "one size"
