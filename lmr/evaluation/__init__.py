"""How good a ranking is, by named protocols; the files of the contests; pictures of what was found.

>>> from lmr.evaluation import map_at_100
>>> map_at_100({"query": ["wrong", "right"]}, {"query": ["right"]}).mean
0.5
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmr.evaluation.kaggle import parse_solution, parse_submission
    from lmr.evaluation.pictures import match_picture, thumbnail
    from lmr.evaluation.scorers import gap, map_at_100, map_classic, map_revisited

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
    "gap": "scorers",
    "map_at_100": "scorers",
    "map_classic": "scorers",
    "map_revisited": "scorers",
    "match_picture": "pictures",
    "parse_solution": "kaggle",
    "parse_submission": "kaggle",
    "thumbnail": "pictures",
}


def __getattr__(name: str) -> Any:
    # NumPy, Pillow and fsspec are imported when what needs them is asked for.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
