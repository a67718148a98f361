"""The page of `lmr group`: groups of photos of one place, the largest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmr.evaluation.pages.answers import page_environment

__all__ = ["ShownGroup", "render_groups"]


@dataclass(frozen=True, kw_only=True)
class ShownGroup:
    """A group as the page shows it.

    Attributes
    ----------
    number, size
        Its number from 1, and how many photos it has.
    strip
        Name of the file beside the page that shows its first photos; empty without.
    paths
        Paths of its first photos.
    """

    number: int
    size: int
    strip: str
    paths: tuple[str, ...]


def render_groups(title: str, shown: Sequence[ShownGroup], *, groups: int, grouped: int, photos: int) -> str:
    """Return the page, HTML without a script.

    Parameters
    ----------
    title
        Name of the run.
    shown
        The largest groups.
    groups, grouped, photos
        How many groups there are, how many photos they hold, and how many the gallery has.
    """
    template = page_environment().get_template("groups.html")
    return str(template.render(title=title, shown=shown, groups=groups, grouped=grouped, photos=photos))
