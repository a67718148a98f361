"""The options of settings and networks, on every command that prepares a workflow."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from lmr.features.kinds import global_kinds, local_kinds

__all__ = ["FEATURES_PANEL", "SETTINGS", "SETTINGS_PANEL", "chosen_settings", "give_options", "with_settings"]

SETTINGS_PANEL, FEATURES_PANEL = "Settings", "Features and networks"
"""Groups of options in the help."""


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, rich_help_panel=panel, help=text)


def _feature(what: str, kinds: Iterable[str], *names: str) -> Any:
    return _option(FEATURES_PANEL, f"{what}: {', '.join(kinds)}, or your own FILE.py:CLASS.", *names)


def _weights(whose: str) -> Any:
    return _option(FEATURES_PANEL, f"Weights of the {whose} network: a file or URL.")


def chosen_settings(
    config: Annotated[str | None, _option(SETTINGS_PANEL, "TOML file of settings, a table per step.")] = None,
    preset: Annotated[
        str | None, _option(SETTINGS_PANEL, "Named settings, such as paper; the run tells them.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        _option(SETTINGS_PANEL, "One setting, as step.field=value; may be repeated.", "--set"),
    ] = None,
    local: Annotated[str | None, _feature("Local features", local_kinds())] = None,
    local_weights: Annotated[str | None, _weights("local features'")] = None,
    global_: Annotated[str | None, _feature("Global descriptor", global_kinds(), "--global")] = None,
    weights: Annotated[str | None, _weights("global descriptor's")] = None,
    device: Annotated[str, _option(FEATURES_PANEL, "Where networks run: cpu or cuda.")] = "cpu",
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
