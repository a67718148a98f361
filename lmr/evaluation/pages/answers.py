"""The page of `lmr search`: what was found for each photo, in one file that needs no other.

`render_answers` is a pure function; pictures come in as `data:` URIs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from lmr.text import printable

__all__ = ["ShownAnswer", "ShownMatch", "page_environment", "render_answers"]


@dataclass(frozen=True, kw_only=True)
class ShownMatch:
    """A photo that was found, as the page shows it.

    Attributes
    ----------
    path, says
        Its path, and a line of figures below it.
    confident
        Whether it is a confident match.
    picture, lines
        The photo, and both photos side by side with lines between what agrees; `data:` URIs, may be empty.
    """

    path: str
    says: str
    confident: bool = False
    picture: str = ""
    lines: str = ""


@dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    """A photo that was asked for, as the page shows it.

    Attributes
    ----------
    name, says
        Its name, and a sentence of what was found or why nothing could be.
    picture
        The photo, a `data:` URI.
    matches
        The photos found, best first.
    """

    name: str
    says: str
    picture: str = ""
    matches: Sequence[ShownMatch] = ()


def render_answers(title: str, answers: Sequence[ShownAnswer]) -> str:
    """Return the page: HTML with style and pictures inside, without a script."""
    page = page_environment().get_template("answers.html").render(title=title, answers=answers)
    return str(page)


def page_environment() -> jinja2.Environment:
    """Return the templates of pages; text in them is escaped, and what no eye would see is written out."""
    templates = resources.files("lmr.evaluation.pages") / "templates"
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    return printable(value, keep="\n\t") if type(value) is str else value
