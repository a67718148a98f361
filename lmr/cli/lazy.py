"""A group of commands whose modules are imported when one of them is called, not for the list of all."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from lmr import need_place_for_compiled_code
from lmr.text import one_of

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
    examples
        Command lines that its help ends with.
    """

    place: str
    help: str
    examples: tuple[str, ...] = ()

    def load(self, name: str) -> Any:
        """Import the command's module and return the command."""
        need_place_for_compiled_code()
        module, _, attribute = self.place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            group = typer.main.get_command(found)
            group.epilog = examples_text(self.examples)
            return group
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        app.command(name, epilog=examples_text(self.examples), cls=_TellsAllMissing)(found)
        return typer.main.get_command(app)


class _TellsAllMissing(TyperCommand):
    """Tells all options that are missing at once, where the library tells the first one.

    A function may have an attribute `also_missing`: it takes what was given, and names what else is missing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, unless more than one option is missing."""
        if not ctx.resilient_parsing and not {"--help", "-h"} & set(args):
            given, *_ = self.make_parser(ctx).parse_args(args=list(args))
            missing = [
                _shown(one)
                for one in self.get_params(ctx)
                if one.required and not given.get(one.name) and not one.value_from_envvar(ctx)
            ]
            also = getattr(self.callback, "also_missing", None)
            if missing and also is not None:
                missing += also(given)
            if len(missing) > 1:
                ctx.fail(f"Missing: {', '.join(missing)}")
        return super().parse_args(ctx, args)


def _shown(one: Any) -> str:
    """Return what people call an option, or an argument."""
    return str(max(one.opts, key=len)) if one.param_type_name == "option" else str(one.name).upper()


def examples_text(examples: Sequence[str]) -> str | None:
    """Return examples as the end of a command's help, a paragraph each."""
    lines = [f"[dim]$[/] {example}" for example in examples]
    return "\n\n".join(["[bold]Examples[/]", *lines]) if examples else None


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
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command '{args[0]}'; {one_of(args[0], self.list_commands(ctx))}")
        try:
            return super().resolve_command(ctx, args)
        finally:
            self.calling = False
