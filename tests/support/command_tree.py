"""The commands of `lmr`, imported as they are when they are called."""

from lmr.cli.main import COMMANDS

__all__ = ["command_at"]


def command_at(*path: str):
    """Return the command at a path such as `("cluster", "worker")`."""
    command = COMMANDS[path[0]].load(path[0])
    for name in path[1:]:
        command = command.commands[name]
    return command
