"""Folders of lmr's own on this machine: for what can be made again, and what may therefore be deleted.

Such a folder is a real one, not a link; it belongs to this user, and others have no access. It carries a
marker that lmr wrote. lmr deletes inside marked folders only, and it never follows a link on the way.

They lie below `$LMR_CACHE`. Without that variable it is `lmr` in the user's cache (`$XDG_CACHE_HOME`,
`~/.cache`), or `lmr-UID` in the temporary folder where there is no home that can be written.
"""

import errno
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmr.errors import StorageError, one_line

__all__ = ["MARKER", "cache_root", "keep_compiled_code", "marked_folder", "private_folder", "remove"]

MARKER = "CACHEDIR.TAG"
"""Name of the marker; programs that make backups know it and leave such a folder out."""

_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# lmr made this folder, and deletes what it keeps in it. See https://bford.info/cachedir/\n"
)
_FIX = "set LMR_CACHE (of a worker: --cache) to a folder of your own that can be written"


def cache_root() -> Path:
    """Return the folder below which lmr's own folders lie, made if need be.

    Raises
    ------
    StorageError
        If it cannot be made or written, or is a link that another user made.
    """
    if chosen := os.environ.get("LMR_CACHE"):
        return _chosen(Path(os.path.expanduser(chosen)).absolute())
    return _in_home() or _in_temporary()


def private_folder(name: str, root: Path | str | None = None) -> Path:
    """Return a folder for one purpose below `cache_root()` (or another root), for this user alone.

    Raises
    ------
    StorageError
        If it cannot be made or written, is a link, belongs to another user, or holds what is not lmr's.
    """
    return marked_folder((cache_root() if root is None else _chosen(Path(root).absolute())) / f"lmr-{name}")


def marked_folder(path: Path, *, private: bool = True, fix: str = _FIX) -> Path:
    """Make a folder that carries lmr's marker, or check that one does.

    Parameters
    ----------
    path
        The folder. An empty one is taken; one that holds other things is refused.
    private
        Whether it must belong to this user; access of others is then taken away.
    fix
        How another folder is chosen.

    Raises
    ------
    StorageError
        If it cannot be made or written, is a link, belongs to another user, or holds what is not lmr's.
    """
    with _explained(path, fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700 if private else 0o777)
        with _opened(path) as folder:
            if private:
                _make_private(path, folder, fix)
            _mark(path, folder, fix)
    return path


def remove(folder: Path, name: str) -> None:
    """Delete a file or a folder in a marked folder; of a link only the link.

    Raises
    ------
    StorageError
        If the folder does not carry lmr's marker: then nothing in it is lmr's to delete.
    OSError
        If it cannot be deleted.
    """
    with _opened(folder) as opened:
        if not _is_marked(opened):
            raise _foreign(folder, opened, "delete it yourself, if it is not needed")
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=opened)
            else:
                os.unlink(name, dir_fd=opened)


def keep_compiled_code() -> None:
    """Tell Numba to keep compiled code in a folder of lmr's own, since it cannot lie beside lmr's source.

    Processes that this one starts inherit the choice. A line on the error output says when it is a temporary
    folder, where the code may have to be compiled again.

    Raises
    ------
    StorageError
        If no folder can be written, not even a temporary one.
    """
    try:
        folder = private_folder("compiled")
        told = not os.environ.get("LMR_CACHE") and folder.parent == _temporary()
    except (StorageError, OSError) as error:  # OSError: there is no temporary folder either
        try:
            folder, told = Path(tempfile.mkdtemp(prefix="lmr-compiled-")), True
        except OSError:
            raise StorageError(
                "no folder can be written for compiled code", got=one_line(error), fix=_FIX
            ) from error
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    if told:
        why = "neither lmr's own folder nor a cache can be written; LMR_CACHE chooses another folder"
        print(f"lmr keeps compiled code in {folder}: {why}", file=sys.stderr)


def _chosen(path: Path) -> Path:
    with _explained(path, _FIX):
        with suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
                raise StorageError(
                    f"{path} is a link that another user made", got=f"uid {found.st_uid}", fix=_FIX
                )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _in_home() -> Path | None:
    """Return `lmr` in the user's cache; None where it cannot be this user's own."""
    home, base = Path(os.path.expanduser("~")), os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        if not (home.is_absolute() and home.is_dir()):
            return None
        base = str(home / ".cache")
    folder = Path(base) / "lmr"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError:
        return None
    return folder if owner == os.geteuid() and os.access(folder, os.W_OK | os.X_OK) else None


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"lmr-{os.geteuid()}"


def _in_temporary() -> Path:
    # The name can be guessed, and anyone may have made it: hence the checks, which follow no link.
    return marked_folder(_temporary())


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a folder, not through a link: what is checked is then what is used."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield folder
    finally:
        os.close(folder)


def _make_private(path: Path, folder: int, fix: str) -> None:
    found = os.fstat(folder)
    if found.st_uid != os.geteuid():
        raise StorageError(f"{path} belongs to another user", got=f"uid {found.st_uid}", fix=fix)
    if found.st_mode & 0o077:
        os.fchmod(folder, 0o700)
        if os.fstat(folder).st_mode & 0o022:
            raise StorageError(
                f"{path} can be written by others", got="a file system that keeps no permissions", fix=fix
            )


def _mark(path: Path, folder: int, fix: str) -> None:
    if _is_marked(folder):
        return
    # Another process may have made the folder just now; it writes the marker first.
    theirs = [name for name in os.listdir(folder) if not name.startswith(f".{MARKER}.")]
    if theirs and not _is_marked(folder):
        raise _foreign(path, folder, f"move what it holds elsewhere, or {fix}")
    temporary = f".{MARKER}.{uuid.uuid4().hex}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
    try:
        os.write(file, _TAG)
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(temporary, MARKER, src_dir_fd=folder, dst_dir_fd=folder)


def _is_marked(folder: int) -> bool:
    try:
        file = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        return os.read(file, 2 * len(_TAG)) == _TAG
    finally:
        os.close(file)


def _foreign(path: Path, folder: int, fix: str) -> StorageError:
    held = ", ".join(sorted(os.listdir(folder))[:5])
    return StorageError(
        f"{path} is not a folder that lmr made, and lmr deletes only in its own",
        got=f"no {MARKER} of lmr beside {held}",
        fix=fix,
    )


@contextmanager
def _explained(path: Path, fix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            got = f"a link to {os.readlink(path)}"
            raise StorageError(
                f"{path} must be a folder and no link", got=got, fix=f"remove the link, or {fix}"
            ) from error
        raise StorageError(f"cannot use the folder {path}", got=str(error), fix=fix) from error
