"""The options of settings and networks, on every command that prepares a workflow."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from lmr.features.kinds import global_kinds, local_kinds

__all__ = ["FEATURES_PANEL", "SETTINGS", "SETTINGS_PANEL", "chosen_settings", "give_options", "with_settings"]

SETTINGS_PANEL, FEATURES_PANEL = "Settings", "Features and networks"
"""Groups of options in the help."""


def chosen_settings(
    config: Annotated[
        str | None,
        typer.Option(rich_help_panel=SETTINGS_PANEL, help="TOML file of settings, a table per step."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=SETTINGS_PANEL, help="Named settings, such as paper; the run tells them."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", rich_help_panel=SETTINGS_PANEL, help="One setting, as step.field=value; may be repeated."
        ),
    ] = None,
    local: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=FEATURES_PANEL,
            help=f"Local features: {', '.join(local_kinds())}, or your own FILE.py:CLASS.",
        ),
    ] = None,
    local_weights: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=FEATURES_PANEL, help="Weights of the local features' network: a file or URL."
        ),
    ] = None,
    global_: Annotated[
        str | None,
        typer.Option(
            "--global",
            rich_help_panel=FEATURES_PANEL,
            help=f"Global descriptor: {', '.join(global_kinds())}, or your own FILE.py:CLASS.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=FEATURES_PANEL, help="Weights of the global descriptor's network: a file or URL."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(rich_help_panel=FEATURES_PANEL, help="Where networks run: cpu or cuda.")
    ] = "cpu",
) -> dict[str, Any]:
    """Return what the options choose, by the names of `lmr.api.choices.Choices`."""
    return {
        "config": config,
        "preset": preset,
        "overrides": tuple(set_ or ()),
        "local": local,
        "local_weights": local_weights,
        "descriptor": global_,
        "weights": weights,
        "device": device,
    }


SETTINGS: Mapping[str, inspect.Parameter] = inspect.signature(chosen_settings).parameters
"""The options, by the names of their parameters."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is what `chosen_settings` returns these options in its place."""
    return give_options(command, chosen_settings, SETTINGS, first=False)


def give_options(
    command: Callable[..., None],
    gather: Callable[..., Any],
    options: Mapping[str, inspect.Parameter],
    *,
    first: bool = True,
) -> Callable[..., None]:
    """Return a command with more options, whose first parameter is what these were gathered to.

    Parameters
    ----------
    command
        The command as it is written.
    gather
        What is called with the options, by name; it returns the command's first argument.
    options
        The options, by name, as `inspect.signature` finds them.
    first
        Whether the help lists them before the command's own.
    """
    own = list(inspect.signature(command).parameters.values())[1:]

    def wrapped(**values: Any) -> None:
        gathered = gather(**{name: values.pop(name) for name in options})
        command(gathered, **values)

    # This is what typer reads a command's options from.
    listed = (*options.values(), *own) if first else (*own, *options.values())
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in listed]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped
