"""A group of commands whose modules are imported when one of them is called, not for the list of all."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from lmr import need_place_for_compiled_code

__all__ = ["Command", "LazyGroup"]


@dataclass(frozen=True)
class Command:
    """Where a command is, and what the list of all says of it.

    Attributes
    ----------
    place
        `module:name` of a function, or of a `typer.Typer` of further commands.
    help
        The first line of its own help.
    """

    place: str
    help: str

    def load(self, name: str) -> Any:
        """Import the command's module and return the command."""
        need_place_for_compiled_code()
        module, _, attribute = self.place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        app.command(name)(found)
        return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """Lists commands from a table, and imports one when it is called."""

    table: ClassVar[Mapping[str, Command]] = {}
    calling = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the table's order."""
        return [*self.table, *(name for name in super().list_commands(ctx) if name not in self.table)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; while commands are only listed, a stand-in that has its help."""
        known = self.table.get(cmd_name)
        if known is None:
            return super().get_command(ctx, cmd_name)
        if not self.calling:
            app = typer.Typer(add_completion=False)
            app.command(cmd_name, help=known.help)(lambda: None)
            return typer.main.get_command(app)
        command = known.load(cmd_name)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called, imported."""
        self.calling = True
        try:
            return super().resolve_command(ctx, args)
        finally:
            self.calling = False
