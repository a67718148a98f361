"""Groups of photos of one place: steps that are added to a finished run, without queries."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmr.api.reopen import Reopened
from lmr.errors import LmrError
from lmr.runtime.steps import Step, closure
from lmr.steps.both import Both
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.groups.candidates import gallery_pairs
from lmr.steps.groups.group import GroupsSettings, group
from lmr.steps.results.groups import RunGroups, store_groups
from lmr.steps.verification.verify import VerifySettings, verify

__all__ = ["Grouping", "declare_groups"]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The steps that find the groups of a run's gallery, and what is written at the end.

    Attributes
    ----------
    step
        The step `group`; all others are run because it needs them.
    files
        What people read.
    """

    step: Step
    files: RunGroups

    @property
    def finalizer(self) -> Any:
        """Writes the files and the page once the groups are there."""
        return partial(store_groups, self.files)


def declare_groups(run: Reopened, settings: GroupsSettings | None = None) -> Grouping:
    """Declare the steps: every photo of the gallery is a query of itself.

    What the run has made of its gallery (features, descriptors, the kNN graph) is used as it is.

    Raises
    ------
    LmrError
        If the run's workflow has no local features to verify pairs by.
    """
    settings, flow = settings or GroupsSettings(), run.flow
    if flow.local is None or flow.images is None or flow.described is None:
        raise LmrError(
            "this workflow has no local features, so pairs of photos cannot be verified",
            got=run.root,
            fix="give the folder of a run of a workflow with local features, such as retrieval",
        )
    local, images = flow.local.gallery, flow.images.gallery
    graph = find_neighbours(
        flow.described.gallery, getattr(run.settings, "neighbours", None) or NeighbourSettings()
    )
    candidates = gallery_pairs(graph, settings.gallery_pairs)
    verification = getattr(run.settings, "verify", None) or VerifySettings()
    pairs = verify(candidates, Both(local, local), Both(images, images), verification)
    made = group(pairs, len(flow.inputs.photos.gallery), settings.group)
    files = RunGroups(
        root=run.root,
        name=os.path.basename(run.root.rstrip("/")) or run.root,
        groups=made.dataset(run.root),
        photos=run.datasets.photos.gallery,
        images=images.dataset(run.root),
        layout=run.datasets.layouts.gallery,
        steps=tuple(step.dataset(run.root) for step in closure([made])),
    )
    return Grouping(step=made, files=files)
