"""How good a ranking is, by named protocols; the files of the contests; pictures of what was found.

>>> from lmr.evaluation import map_at_100
>>> map_at_100({"query": ["wrong", "right"]}, {"query": ["right"]}).mean
0.5
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmr.evaluation.pages.pictures import match_picture, thumbnail
    from lmr.evaluation.protocols.kaggle import parse_solution, parse_submission
    from lmr.evaluation.protocols.scorers import gap, map_at_100, map_classic, map_revisited

__all__ = [
    "gap",
    "map_at_100",
    "map_classic",
    "map_revisited",
    "match_picture",
    "parse_solution",
    "parse_submission",
    "thumbnail",
]

_PLACES = {
    "gap": "protocols.scorers",
    "map_at_100": "protocols.scorers",
    "map_classic": "protocols.scorers",
    "map_revisited": "protocols.scorers",
    "match_picture": "pages.pictures",
    "parse_solution": "protocols.kaggle",
    "parse_submission": "protocols.kaggle",
    "thumbnail": "pages.pictures",
}


def __getattr__(name: str) -> Any:
    # NumPy, Pillow and fsspec are imported when what needs them is asked for.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
