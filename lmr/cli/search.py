"""`lmr search`: a finished run is asked for photos that it does not know."""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmr import storage
from lmr.cli.report import Run
from lmr.text import printable

if TYPE_CHECKING:
    from lmr.api.ask import Answer
    from lmr.api.reopen import Reopened

__all__ = ["OwnCode", "search"]

out = Console(highlight=False)

OwnCode = Annotated[
    bool,
    typer.Option("--own-code", help="Run the workflow file or extractor that the run's folder names."),
]


def search(
    run: Run,
    photos: Annotated[
        list[str], typer.Argument(help="Photos to search for: paths or URLs of files, no folders.")
    ],
    most: Annotated[int, typer.Option("--most", min=1, help="Photos that are shown of each answer.")] = 20,
    until: Annotated[
        str | None, typer.Option(help="Stage whose list is shown, such as expand. Default: the last.")
    ] = None,
    page: Annotated[str | None, typer.Option(help="Write a page with pictures to this file too.")] = None,
    own_code: OwnCode = False,
) -> None:
    """Search a finished run's gallery for one photo, or for several, in seconds."""
    from lmr.api.answers import shown_answer
    from lmr.api.ask import PhotoSearch
    from lmr.api.reopen import reopen
    from lmr.errors import LmrError
    from lmr.evaluation.pages.answers import ShownAnswer, render_answers

    started = time.perf_counter()
    opened = reopen(run, own_code=own_code)
    asked = PhotoSearch(opened, until)
    _tell(f"opened in {time.perf_counter() - started:.1f} s")
    shown, failed = [], 0
    for photo in photos:
        started = time.perf_counter()
        try:
            content = _read(photo)
            answer = asked.ask(content, most=most)
        except LmrError as error:
            failed += 1
            _tell(f"{photo}: not searched for: {error.what}")
            shown.append(ShownAnswer(name=_short(photo), says=f"It could not be searched for: {error.what}."))
            continue
        said = f"{sentence(answer)} ({time.perf_counter() - started:.2f} s)"
        _tell(f"{photo}: {said}")
        out.print(_table(answer, opened))
        if page is not None:
            shown.append(shown_answer(opened, _short(photo), content, answer, sentence(answer)))
    if page is not None:
        storage.put(storage.absolute(page), render_answers("Photos that were searched for", shown).encode())
        _tell(f"page {page}")
    if failed:
        raise LmrError(
            f"{failed} of {len(photos)} photos could not be searched for",
            fix="see the reasons above; the answers of the others are complete",
        )


def _read(photo: str) -> bytes:
    """Return a photo's bytes; a folder is told as one, and not as a file that could not be read."""
    from lmr.errors import StorageError

    url = storage.absolute(photo)
    if photo.endswith("/") or (storage.is_local(url) and os.path.isdir(storage.local_path(url))):
        folder = photo.rstrip("/") or "/"
        raise StorageError(f"it is a folder: name the photos in it, such as {folder}/*.jpg", got=url)
    return storage.read(url)


def _short(photo: str) -> str:
    """Return a photo's name without its folder: a page is handed on."""
    return photo.rstrip("/").rpartition("/")[2] or photo


def sentence(answer: "Answer") -> str:
    """Return what people read of an answer."""
    count = len(answer.matches)
    if not count:
        return "no match"
    found = f"{count:,} match{'es' if count != 1 else ''}"
    return found if answer.confident is None else f"{found}, {answer.confident or 'none'} of them confident"


def _table(answer: "Answer", run: "Reopened") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("photo", overflow="fold")
    verified = answer.confident is not None
    calibrated = any(one.probability is not None for one in answer.matches)
    figures = [*(["confident", "inliers"] if verified else []), "similarity"]
    for name in [*figures, *(["probability"] if calibrated else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("found by", no_wrap=True)
    for one in answer.matches:
        sure = ["yes" if one.confident else "", f"{one.inliers:,}" if one.inliers else "–"]
        table.add_row(
            str(one.rank),
            Text(printable(one.path)),
            *(sure if verified else []),
            f"{one.similarity:.3f}",
            *([f"{one.probability:.3f}"] if one.probability is not None else []),
            Text(printable(run.datasets.label(one.stage))),
        )
    return table


def _tell(text: str) -> None:
    out.print(Text(printable(text)), soft_wrap=True)
