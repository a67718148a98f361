"""Published data sets by name: where their files lie, how they are fetched, and what a run takes of them."""

from lmr.collections.catalogue import COLLECTIONS, Collection, Part, find_collection
from lmr.collections.fetch import fetch
from lmr.collections.ready import Ready, open_collection

__all__ = ["COLLECTIONS", "Collection", "Part", "Ready", "fetch", "find_collection", "open_collection"]
