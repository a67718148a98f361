"""The numerics of the five stages: arrays in, arrays out.

>>> from lmr.retrieval import affinity, diffuse, restart, top_k, transition
>>> import numpy as np
>>> gallery = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]] + np.float32(0.1)  # two landmarks, two photos each
>>> gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
>>> sims, ids = top_k(gallery[:1], [(0, gallery)], 2)  # the query is photo 0
>>> ids
array([[0, 1]], dtype=int32)
>>> near, neighbours = top_k(gallery, [(0, gallery)], 3, exclude_self_start=0)
>>> graph = transition(affinity(neighbours, near, gamma=3))
>>> starts, values = restart(ids, sims, np.zeros(1, np.int32), 1, gamma=3, nodes=2)
>>> np.argsort(-diffuse(graph, starts, values, alpha=0.9)[0]).tolist()[:2]
[0, 1]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmr.retrieval.descriptors import to_float
    from lmr.retrieval.diffusion.affinity import affinity, transition
    from lmr.retrieval.diffusion.online import diffuse, pool_regions, restart
    from lmr.retrieval.expansion.expand import expand_queries
    from lmr.retrieval.global_search.augmentation import augment_descriptors
    from lmr.retrieval.global_search.exact import top_k
    from lmr.retrieval.verification.verify import Features, Recipe, Verification, verify_pairs

__all__ = [
    "Features",
    "Recipe",
    "Verification",
    "affinity",
    "augment_descriptors",
    "diffuse",
    "expand_queries",
    "pool_regions",
    "restart",
    "to_float",
    "top_k",
    "transition",
    "verify_pairs",
]

_PLACES = {
    "Features": "verification.verify",
    "Recipe": "verification.verify",
    "Verification": "verification.verify",
    "affinity": "diffusion.affinity",
    "augment_descriptors": "global_search.augmentation",
    "diffuse": "diffusion.online",
    "expand_queries": "expansion.expand",
    "pool_regions": "diffusion.online",
    "restart": "diffusion.online",
    "to_float": "descriptors",
    "top_k": "global_search.exact",
    "transition": "diffusion.affinity",
    "verify_pairs": "verification.verify",
}


def __getattr__(name: str) -> Any:
    # Numba, SciPy and faiss are imported when what needs them is asked for.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
