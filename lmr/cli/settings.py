"""`lmr settings`: what can be set, from the classes themselves."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["meanings", "range_text", "settings"]

out = Console(highlight=False)


def settings(
    step: Annotated[str | None, typer.Argument(help="One step; without it: all.")] = None,
    workflow: Annotated[str, typer.Option(help="The workflow's file, or its name.")] = "retrieval",
    preset_: Annotated[str | None, typer.Option("--preset", help="Whose values are shown.")] = None,
) -> None:
    """List the settings of a workflow's steps, with their defaults and ranges."""
    from lmr.api.workflows import load_workflow, preset
    from lmr.errors import SettingsError
    from lmr.text import one_of

    module = load_workflow(workflow)
    values = preset(module, preset_)
    groups = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    if step is not None and step not in groups:
        raise SettingsError("no step has settings of this name", got=step, fix=one_of(step, groups))
    if step is None:
        out.print(f"presets of {workflow}: {', '.join(module.PRESETS)}", soft_wrap=True)
    for name, group in groups.items():
        if step in (None, name):
            out.print(_table(name, group, full=step is not None))
    out.print("set one by --set STEP.SETTING=VALUE; what they mean: lmr settings STEP", soft_wrap=True)


def _table(name: str, group: Any, *, full: bool) -> Table:
    table = Table(title=name, title_justify="left")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("range", overflow="fold")
    if full:
        table.add_column("meaning", overflow="fold")
    says, kinds = meanings(type(group)), get_type_hints(type(group), include_extras=True)
    for field in dataclasses.fields(group):
        row = [field.name, _value(getattr(group, field.name)), range_text(kinds[field.name])]
        table.add_row(*(Text(cell) for cell in (*row, *([says.get(field.name, "")] if full else []))))
    return table


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def range_text(kind: Any) -> str:
    """Return the values that a type of a setting takes, in words.

    Examples
    --------
    >>> from annotated_types import Ge, Le
    >>> range_text(Annotated[int, Ge(1), Le(10)])
    'whole number from 1 to 10'
    >>> range_text(Literal["votes", "asmk"] | None)
    'votes, asmk or none'
    """
    if get_origin(kind) is Annotated:
        base, *bounds = get_args(kind)
        limits = {type(one).__name__: getattr(one, type(one).__name__.lower(), None) for one in bounds}
        return f"{range_text(base)}{_bounds(limits)}"
    if get_origin(kind) is Literal:
        return _either([str(one) for one in get_args(kind)])
    if get_origin(kind) in (Union, types.UnionType):
        parts = [range_text(one) for one in get_args(kind) if one is not type(None)]
        return _either([*", ".join(parts).split(", "), *(["none"] if type(None) in get_args(kind) else [])])
    if get_origin(kind) in (tuple, list):
        inner = [one for one in get_args(kind) if one is not Ellipsis]
        return f"list of {range_text(inner[0])}" if inner else "list"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "none"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _bounds(limits: dict[str, Any]) -> str:
    low, above, high, below = (limits.get(name) for name in ("Ge", "Gt", "Le", "Lt"))
    said = []
    if low is not None:
        said.append(f"from {low:,}")
    if above is not None:
        said.append(f"above {above:,}")
    if high is not None:
        said.append(f"to {high:,}" if low is not None else f"up to {high:,}")
    if below is not None:
        said.append(f"below {below:,}")
    return " " + " ".join(said) if said else ""


def _either(words: list[str]) -> str:
    words = [word.replace(" or ", ", ") for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def meanings(kind: type) -> dict[str, str]:
    """Return the sentence below each field of a class and of those that it is made from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if dataclasses.is_dataclass(one):
            found |= _listed(one) | _documented(one)
    return found


def _listed(kind: type) -> dict[str, str]:
    """Return what the list of attributes in a class's docstring says."""
    _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if line and not line.startswith(" "):
            names = line.split(", ")
        elif line:
            found |= {name: f"{found.get(name, '')} {line.strip()}".strip() for name in names}
    return found


def _documented(kind: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = getattr(tree.body[0], "body", [])
    return {
        field.target.id: " ".join(ast.literal_eval(said.value).split())
        for field, said in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }
