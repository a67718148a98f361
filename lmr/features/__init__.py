"""From photos to local features and global descriptors.

>>> from lmr.features import RootSift, decode_photo
>>> photo = decode_photo(open("photo.jpg", "rb").read())  # doctest: +SKIP
>>> (features,) = RootSift(max_features=500)([photo])  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from lmr.errors import LmrError

if TYPE_CHECKING:
    from lmr.features.decoding.decode import decode_photo
    from lmr.features.interfaces import GlobalExtractor, GlobalFeatures, LocalExtractor, LocalFeatures
    from lmr.features.local.delf import load_delf
    from lmr.features.local.learned import load_aliked, load_xfeat
    from lmr.features.local.rootsift import RootSift
    from lmr.features.networks.gem import load_gem

__all__ = [
    "GlobalExtractor",
    "GlobalFeatures",
    "LocalExtractor",
    "LocalFeatures",
    "RootSift",
    "decode_photo",
    "load_aliked",
    "load_delf",
    "load_gem",
    "load_xfeat",
]

_PLACES = {
    "GlobalExtractor": "interfaces",
    "GlobalFeatures": "interfaces",
    "LocalExtractor": "interfaces",
    "LocalFeatures": "interfaces",
    "RootSift": "local.rootsift",
    "decode_photo": "decoding.decode",
    "load_aliked": "local.learned",
    "load_delf": "local.delf",
    "load_gem": "networks.gem",
    "load_xfeat": "local.learned",
}


def __getattr__(name: str) -> Any:
    # OpenCV and torch are imported when what needs them is asked for.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "lmr":
            raise
        raise LmrError(
            f"{name} needs a package that is not installed", got=str(error), fix='pip install "lmr[features]"'
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
