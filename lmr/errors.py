"""The errors that a user may see: what went wrong, what was got, and the fix, one line each.

With `lmr.text` this is the ground under every other module, and all of `lmr` may import it.
"""

from lmr.text import printable

__all__ = [
    "LmrError",
    "SettingsError",
    "StorageError",
    "ShardError",
    "ClusterError",
    "CloudError",
    "PhotoError",
    "one_line",
]


class LmrError(Exception):
    """An error that is the user's to mend; the command line prints it without a traceback.

    Parameters
    ----------
    what
        What went wrong, with the names of the things concerned.
    got
        What was found instead of what was expected.
    fix
        What the user can do about it.
    """

    def __init__(self, what: str, *, got: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, got, fix)
        self.what, self.got, self.fix = what, got, fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.got is not None:
            lines.append(f"got: {self.got}")
        if self.fix is not None:
            lines.append(f"fix: {self.fix}")
        # Names of files stand in errors, and errors are printed: nothing in them moves the cursor.
        return printable("\n".join(lines), keep="\n\t")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by BaseException's own pickling; errors travel between processes.
        return _rebuild, (type(self), self.what, self.got, self.fix)


def _rebuild(kind: type[LmrError], what: str, got: str | None, fix: str | None) -> LmrError:
    return kind(what, got=got, fix=fix)


class SettingsError(LmrError):
    """A setting is unknown, of the wrong type or out of range."""


class StorageError(LmrError):
    """Storage cannot be reached, read or written."""


class ShardError(StorageError):
    """A shard is missing, truncated, or was written by something else."""


class ClusterError(LmrError):
    """The scheduler or its workers cannot do what the run asks for."""


class CloudError(LmrError):
    """The cloud refused, would cost too much, or lacks what a cluster needs."""


class PhotoError(LmrError):
    """A photo cannot be decoded; `what` is the reason that its row carries."""


def one_line(error: object, longest: int = 300) -> str:
    """Return the class and the text of an exception on one line, cut to `longest` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:longest]
