"""The list of all commands, which is printed without importing one of them."""

import inspect

import pytest
import typer
from typer.testing import CliRunner

from lmr.cli.main import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_begins_with(name):
    command = COMMANDS[name].load(name)
    assert inspect.cleandoc(command.help).split("\n")[0] == COMMANDS[name].help


def test_the_list_has_every_command_in_order():
    printed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    places = [printed.index(f"│ {name} ") for name in [*COMMANDS, "version"]]
    assert places == sorted(places)
    for command in COMMANDS.values():
        assert command.help in printed
    assert set(typer.main.get_command(app).list_commands(None)) == {*COMMANDS, "version"}
