"""The two sides of a search: the gallery, and the queries that are looked for in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from lmr.runtime.steps import Role

__all__ = ["ROLES", "Both"]

T = TypeVar("T")
U = TypeVar("U")

ROLES: tuple[Role, Role] = ("gallery", "queries")
"""The sides, in the order in which they are told."""


@dataclass(frozen=True)
class Both(Generic[T]):
    """Something of the gallery and the same of the queries.

    Attributes
    ----------
    gallery
        That of the gallery.
    queries
        That of the queries.
    """

    gallery: T
    queries: T

    def map(self, f: Callable[[T], U]) -> "Both[U]":
        """Return what a function makes of either side."""
        return Both(f(self.gallery), f(self.queries))

    def zip(self, other: "Both[U]") -> "Both[tuple[T, U]]":
        """Return either side together with that of another pair."""
        return Both((self.gallery, other.gallery), (self.queries, other.queries))

    def of(self, role: Role) -> T:
        """Return one side by its name."""
        return self.gallery if role == "gallery" else self.queries

    def values(self) -> Iterator[T]:
        """Yield what is of the gallery, then what is of the queries."""
        yield from (self.gallery, self.queries)

    def items(self) -> Iterator[tuple[Role, T]]:
        """Yield the name of each side, and what is of it."""
        for role in ROLES:
            yield role, self.of(role)
