"""Help, suggestions, and the settings as they are told."""

import dataclasses
import re
import shlex

import pytest
from typer.testing import CliRunner

import lmr
from lmr.api.workflows import load_workflow
from lmr.cli.lazy import examples_text
from lmr.cli.main import COMMANDS, app
from lmr.cli.settings import meanings
from lmr.errors import LmrError, SettingsError
from tests.support.world import lmr as run_lmr


def printed(*args, code=0):
    done = CliRunner().invoke(app, list(args), env={"COLUMNS": "80", "TERM": "dumb"})
    assert done.exit_code == code, done.output
    return done.output


def test_the_version_and_short_help():
    assert printed("--version").strip() == lmr.__version__
    assert printed("-h") == printed("--help")
    assert "lmr run --help" in printed("-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_a_command_is_one(name):
    """It is parsed as a user's would be: names and options exist."""
    known = COMMANDS[name]
    assert known.examples
    for example in known.examples:
        program, command, *arguments = shlex.split(example)
        assert (program, command) == ("lmr", name)
        loaded = known.load(name)
        while hasattr(loaded, "commands") and arguments and not arguments[0].startswith("-"):
            loaded = loaded.commands[arguments.pop(0)]
        if "--help" not in arguments:
            loaded.make_context(name, arguments)
    assert (
        known.help.rstrip(".") in " ".join(printed("--help").replace("│", " ").split())
        or len(known.help) > 60
    )


def test_help_ends_with_examples_and_fits_80_columns():
    text = printed("matches", "-h")
    assert "Examples" in text
    assert "lmr matches run/ --copy found/ --links" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert examples_text(()) is None


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("run",), "WORKFLOW, --out, --gallery, --queries"),
        (("run", "retrieval", "--gallery", "photos"), "--out, --queries"),
        (("run", "retrieval", "--workers", "2"), "--out, --gallery, --queries"),
        (("run", "descriptors", "--gallery-descriptors", "g.npy"), None),
        (("export", "run/"), "--what, --to, --out"),
        (("evaluate",), "SUBMISSION, --solution"),
    ],
)
def test_all_that_is_missing_is_told_at_once(arguments, missing):
    text = " ".join(printed(*arguments, code=2).replace("│", " ").split())
    assert (f"Missing: {missing}" if missing else "Missing option '--out'") in text


def test_a_command_that_was_mistyped_is_guessed():
    text = " ".join(printed("reprot", code=2).replace("│", " ").split())
    assert "No such command 'reprot'; did you mean report?" in text


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (("settings", "verfy"), "did you mean verify?"),
        (("settings", "--preset", "papre"), "did you mean paper?"),
        (("settings", "--workflow", "retreival"), "did you mean retrieval?"),
    ],
)
def test_names_that_were_mistyped_are_guessed(arguments, guess):
    with pytest.raises(LmrError) as told:
        run_lmr(*arguments)
    assert guess in told.value.fix


@pytest.mark.parametrize(
    ("override", "guess"), [("verfy.min_inliers=3", "verify"), ("verify.min_inlier=3", "min_inliers")]
)
def test_settings_that_were_mistyped_are_guessed(override, guess):
    from lmr.runtime.settings import layer, parse_overrides

    base = load_workflow("retrieval").PRESETS["vlad"]
    with pytest.raises(SettingsError) as told:
        layer(base, parse_overrides([override]))
    assert told.value.fix.startswith(f"did you mean {guess}?")


def test_every_setting_is_listed_with_its_value_and_meaning():
    base = load_workflow("retrieval").PRESETS["paper"]
    text = printed("settings", "--preset", "paper")
    for group in dataclasses.fields(base):
        assert re.search(rf"^{group.name}\s*$", text, re.MULTILINE)
        says = meanings(type(getattr(base, group.name)))
        missing = {f.name for f in dataclasses.fields(getattr(base, group.name))} - {
            n for n, s in says.items() if s
        }
        assert not missing, f"{group.name}: {missing}"
    assert re.search(r"min_inliers\s*│\s*40", text)
    one = printed("settings", "verify")
    assert "more than" not in one
    assert "whole number from 0" in " ".join(one.replace("│", " ").split())
    assert max(len(line) for line in one.splitlines()) <= 80
