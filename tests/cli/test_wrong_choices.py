"""Workflow files and options of the wrong kind: what, what was got, and the fix, never a traceback."""

import pytest

import lmr as library
from lmr.api.workflows import load_workflow
from lmr.errors import LmrError
from tests.support.world import lmr

BUILT = "from workflows.retrieval import PRESETS\n\ndef build(inputs, settings):\n    {}\n"
FILES = {
    "raises at import": ("x = 1\nraise ValueError('broken on purpose')\n", "flow.py:2", "broken on purpose"),
    "raises deeper": ("def f():\n    return 1 / 0\n\nf()\n", "flow.py:2", "ZeroDivisionError"),
    "imports what is not there": ("import nothing_of_this_name\n", "flow.py:1", "ModuleNotFoundError"),
    "exits": ("import sys\n\nsys.exit(3)\n", "flow.py:3", "SystemExit: 3"),
    "has a syntax error": ("x = 1\ndef build(:\n", "flow.py:2", "SyntaxError"),
    "is no text": ("\x00\x01", "flow.py", "null bytes"),
    "is empty": ("", None, "no build"),
    "lacks presets": ("def build(inputs, settings):\n    pass\n", None, "no PRESETS"),
    "has no presets": ("PRESETS = {}\ndef build(inputs, settings):\n    pass\n", None, "no PRESETS"),
    "has a list of presets": ("PRESETS = [1]\ndef build(inputs, settings):\n    pass\n", None, "no PRESETS"),
    "has an odd preset": ("PRESETS = {'a': 3}\ndef build(i, s):\n    pass\n", "flow.py", "a int in"),
    "has a build that is none": ("PRESETS = {'a': 3}\nbuild = 4\n", None, "no build"),
    "builds nothing": (BUILT.format("pass"), None, "build returned a NoneType"),
    "builds another thing": (BUILT.format("return 3"), None, "build returned a int"),
    "raises when built": (BUILT.format("return settings.nothing"), "flow.py:4", "has no attribute 'nothing'"),
    "exits when built": (BUILT.format("raise SystemExit"), "flow.py:4", "SystemExit"),
    "takes no settings": (
        "from workflows.retrieval import PRESETS\n\ndef build():\n    pass\n",
        "flow.py",
        "TypeError",
    ),
    "builds without a ranking": (
        "from lmr.steps.workflow import Workflow\n"
        + BUILT.format("return Workflow(inputs=inputs, images=None, rankings={})"),
        None,
        "no ranking in it",
    ),
    "builds of the wrong things": (
        "from lmr.steps.workflow import Workflow\n"
        + BUILT.format("return Workflow(inputs=inputs, images=None, rankings={'a': 'b'})"),
        "flow.py",
        "AttributeError",
    ),
}


@pytest.fixture
def photos(tmp_path):
    for role in ("gallery", "queries"):
        (tmp_path / role).mkdir()
        (tmp_path / role / f"{role}.jpg").write_bytes(b"no photo")
    return tmp_path


def run(photos, workflow="retrieval", *more):
    folders = "--gallery", str(photos / "gallery"), "--queries", str(photos / "queries")
    return lmr("run", workflow, *folders, "--out", str(photos / "run"), "--plan", *more)


@pytest.mark.parametrize("kind", FILES)
def test_a_workflow_file_that_is_none_is_told_with_its_line(photos, kind):
    content, where, got = FILES[kind]
    path = photos / "flow.py"
    path.write_text(content)
    with pytest.raises(LmrError) as error:
        run(photos, str(path))
    assert "flow.py" in error.value.what or "preset" in error.value.what
    assert got in error.value.got
    assert error.value.fix
    assert where is None or where in str(error.value)
    assert "\nfix: " in str(error.value)
    # The file that the error points to, mended, is taken.
    path.write_text("from workflows.retrieval import PRESETS, build\n")
    assert "ingest" in run(photos, str(path))


def test_a_folder_and_an_unreadable_file_are_no_workflow(photos):
    (photos / "flow.py").mkdir()
    with pytest.raises(LmrError, match="there is no such workflow"):
        load_workflow(str(photos / "flow.py"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "-1"], "the number of workers is out of range"),
        (["--workers", "1000000000000"], "too little memory for so many workers"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "workers are started on this machine, or"),
        (["--device", "gpu"], "there is no such device"),
        (["--device", ""], "there is no such device"),
        (["--preset", "x"], "unknown preset"),
        (["--local", "sift"], "no such local features"),
        (["--global", "netvlad"], "no such global descriptor"),
        (["--set", "nothing"], "--set takes group.field=value"),
        (["--set", "rank.depth=1e400"], "setting rank.depth is not valid"),
        (["--config", "/nothing/here.toml"], "cannot read"),
        (["--config", "/"], "cannot read"),
        (["--config", "/dev/zero"], "is no file of settings"),
        (["--solution", "/"], "cannot read"),
    ],
)
def test_options_of_the_wrong_kind(photos, options, told):
    with pytest.raises(LmrError) as error:
        run(photos, "retrieval", *options)
    assert told in error.value.what
    assert error.value.got
    assert error.value.fix


def test_an_unknown_workflow_names_those_that_there_are(photos):
    with pytest.raises(LmrError, match=r"no such workflow[\s\S]*retrieval"):
        run(photos, "retrievel")


@pytest.mark.parametrize("prune", ["0", "-1", "many"])
def test_the_command_line_refuses_no_shards(photos, prune):
    assert "Invalid value for '--prune'" in run(photos, "retrieval", "--prune", prune)


@pytest.mark.parametrize(
    "choice",
    [
        *({"prune": 0}, {"prune": -1}, {"prune": True}, {"prune": "2"}, {"device": None}, {"device": 3}),
        {"workers": 0, "scheduler": "tcp://127.0.0.1:1"},
        *({"workers": -1}, {"workers": 1.5}, {"workers": True}, {"preset": 3}, {"config": 3}, {"out": ""}),
        *({"settings": {"rank": 3}}, {"settings": {"rank.depth": 10**5000}}, {"nothing": 1}),
    ],
)
def test_a_program_is_told_too(photos, choice):
    given = {"gallery": photos / "gallery", "queries": photos / "queries", "out": photos / "run", **choice}
    with pytest.raises(LmrError) as error:
        library.retrieve(**given, progress=False)
    assert error.value.got
    assert error.value.fix


def test_an_out_that_is_a_file(photos):
    (photos / "run").write_text("mine")
    with pytest.raises(LmrError):
        lmr(
            *("run", "retrieval", "--gallery", str(photos / "gallery"), "--queries", str(photos / "queries")),
            *("--out", str(photos / "run"), "--workers", "0"),
        )
    assert (photos / "run").read_text() == "mine"
