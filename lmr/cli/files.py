"""`lmr files`: what comes with lmr, to be read, changed and built from."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lmr.errors import SettingsError
from lmr.shipped import files, sources

__all__ = ["copy_files"]


def copy_files(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
) -> None:
    """Copy what comes with lmr into a folder: workflows, deploy/, docker/, guides, and the code."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(
            "there is something already", got=str(folder), fix="name a folder that is not there"
        )
    for name, path in {**sources(), **files()}.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    typer.echo(f"workflows, deploy, docker, docs and lmr's code in {folder}")
