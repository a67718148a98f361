"""What the columns of every dataset mean: of the shards of a run, and of what is exported."""

from collections.abc import Mapping

from lmr.retrieval.naming import INGREDIENTS

__all__ = ["EXPORTS", "FURTHER", "meaning"]

_ANYWHERE = {
    "photo": "Row of the photo on its side.",
    "query": "Row of the query.",
    "photos": "Rows of the gallery's photos, best first; -1 where a list ends early.",
    "scores": "A number for each photo of the list; what it means, the step says.",
    "inliers": "Matches of local features that agree on one transform.",
    "descriptor": "Global descriptor, of unit length; zeros for a photo without one.",
    "regions": "A vector for each region of the photo.",
    "reason": "Why the photo cannot be used; empty for most.",
    "name": "Name of an array.",
    "dtype": "Type of its numbers, as NumPy writes it.",
    "shape": "Its shape.",
    "part": "Number of this piece of it; long arrays are cut.",
    "data": "Its bytes.",
    "ids": "Rows of the nearest photos, nearest first; -1 where there are no more.",
    "sims": "Similarity of each, the cosine of the angle.",
    "id": "Id of the photo.",
    "path": "Path of the photo below its folder; empty where it is no file.",
}

_OF_STEP: Mapping[str, Mapping[str, str]] = {
    "ingest": {
        "image": "The file's bytes, as they are; empty if it cannot be used.",
        "width": "Width of the upright photo in pixels.",
        "height": "Height of the upright photo in pixels.",
        "note": "What is unusual about a photo that is used; empty for most.",
    },
    "check_photos": {"set": "`gallery` or `queries`."},
    "extract_local": {
        "photo": "Row of the photo that the feature is of; a photo's features stand together.",
        "xy": "Place in the upright photo, in pixels; the centre of the first pixel is 0.",
        "scale": "Size of the described patch in pixels.",
        "orientation": "Its direction in radians.",
        "score": "How strong it is.",
        "descriptor": "Local descriptor, as it is stored.",
    },
    "search": {
        "scores": "Votes, or ASMK's similarity.",
        "background": "What a photo of the gallery gets by chance.",
    },
    "verify": {
        "photo": "Row of the gallery's photo.",
        "tentative": "Matches of local features before RANSAC.",
        "transform": "Three by three numbers, row by row: gallery photo to query photo, in the scaled frame.",
        "matches": "The inliers: number of the query's feature and of the photo's, each within its photo.",
    },
    "rerank": {
        "scores": "Those of the local search.",
        "background": "That of the local search.",
        "inliers": "Inliers of each photo of the list.",
        "confident": "How many photos at the head of the list are confident matches.",
    },
    "neighbours": {"photo": "Row of the gallery's photo."},
    "augment": {"descriptor": "The photo's descriptor averaged with its neighbours', of unit length."},
    "rank": {"scores": "Similarity to the query, the cosine of the angle."},
    "expand": {
        "scores": "Similarity to the expanded query, and the weighted logarithm of the votes.",
        "descriptor": "The expanded query.",
        "confident": "How many photos at the head of the list are confident matches.",
    },
    "link_regions": {"ids": "Numbers of the nearest regions, counted over the whole gallery."},
    "graph": {
        "columns": "Numbers of the regions that this one is joined to.",
        "values": "Weight of each of these edges.",
    },
    "diffuse": {"scores": "Scores after the diffusion."},
    "probability": {
        "photos": "Rows of the last list's photos, then of others that were verified; -1 for none.",
        "probability": "That each of them shows the query's landmark; 0 where there is none.",
    },
    "submit": {"id": "Id of the query.", "images": "Ids of its photos, best first, up to a hundred."},
    "evaluate": {
        "id": "Id of the query.",
        **dict.fromkeys(("search", "verify", "rank", "expand", "diffuse"), "AP@100 after this stage."),
    },
}

_RANKING = {name: _ANYWHERE[name] for name in ("query", "photos")}

FURTHER: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "learn_words": (
        "any, with `--global vlad` or `triangulation`",
        "vocabulary",
        {name: _ANYWHERE[name] for name in ("name", "dtype", "shape", "part", "data")},
    ),
    "own_descriptors": (
        "descriptors",
        "global",
        {
            "photo": _ANYWHERE["photo"],
            "descriptor": "The photo's own vector, of unit length.",
            "regions": "All vectors of the photo, its own first.",
        },
    ),
    "protocols": (
        "any, with `--score`",
        "protocols",
        {
            "id": "Id of the query.",
            "protocol": "Name of the protocol, as it was asked for.",
            "metric": "What was measured.",
            "stage": "The stage whose list was scored.",
            "score": "The query's score; NaN where the protocol leaves it out of the mean.",
        },
    ),
    "background": (
        "recognition",
        "background",
        {
            "photo": _ANYWHERE["photo"],
            "background": "How much it looks like photos without a landmark: a mean similarity.",
        },
    ),
    "frequency": (
        "recognition",
        "frequency",
        {"share": "Share of the photos without a landmark that a landmark attracts; a row per landmark."},
    ),
    "recognise": (
        "recognition",
        "recognised",
        {
            "query": _ANYWHERE["query"],
            "landmark": "Number of the landmark that is named, after each ingredient; -1 for none.",
            "confidence": "How sure that is, after each ingredient.",
            "support": "How many pairs speak for the last name.",
            "photo": "Row of the gallery's photo that speaks most for it; -1 for none.",
        },
    ),
    "evaluate_recognition": (
        "recognition, with a solution",
        "scores/recognition",
        {
            "id": "Id of the query.",
            **dict.fromkeys(INGREDIENTS, "What the query gives to GAP with this ingredient added."),
            "accuracy": "1 where the last name is right, else 0.",
        },
    ),
    "label_candidates": (
        "recognition",
        "label_candidates",
        {
            **_RANKING,
            "query": "Row of a photo of the gallery.",
            "scores": "Similarity of each.",
        },
    ),
    "verify_labels": (
        "recognition",
        "label_pairs",
        {
            "query": "Row of a labelled photo of the gallery.",
            "photo": "Row of a near one, labelled too.",
            "inliers": _ANYWHERE["inliers"],
            **{name: _OF_STEP["verify"][name] for name in ("tentative", "transform", "matches")},
        },
    ),
    "gallery_pairs": (
        "`lmr group`",
        "gallery_pairs",
        {
            **_RANKING,
            "query": "Row of a photo of the gallery.",
            "scores": "Similarity of each.",
        },
    ),
    "verify_gallery": (
        'any, with `refine.method` "embedding"',
        "gallery_links",
        {
            "query": "Row of a photo of the gallery.",
            "photo": "Row of a near one.",
            "inliers": _ANYWHERE["inliers"],
            **{name: _OF_STEP["verify"][name] for name in ("tentative", "transform", "matches")},
        },
    ),
    "refine": (
        "any, with `refine.method`",
        "refined",
        {**_RANKING, "scores": "Those of the list before, and the weighted refined score."},
    ),
    "group": (
        "`lmr group`",
        "grouped",
        {
            "photo": _ANYWHERE["photo"],
            "group": "Number of its group, 0 for the largest; -1 where it is alone.",
            "links": "How many photos of its group it was verified with.",
            "inliers": "The most inliers of these pairs.",
        },
    ),
}
"""Steps that the default workflow has not: who makes them, their folder, and their columns in order."""

_PAIR = {
    "query": "Id of the query.",
    "query_path": "Its path below the folder of queries.",
    "photo": "Id of the gallery's photo.",
    "photo_path": "Its path below the gallery's folder.",
}
_PHOTO = {
    "set": "`gallery` or `queries`.",
    "photo": "Id of the photo.",
    "photo_path": "Its path below the folder of its side.",
}
_FEATURE = _OF_STEP["extract_local"]

EXPORTS: Mapping[str, Mapping[str, str]] = {
    "matches": {
        "query": _PAIR["query"],
        "query_path": _PAIR["query_path"],
        "rank": "Place in the query's final list, from 1.",
        "photo": _PAIR["photo"],
        "photo_path": _PAIR["photo_path"],
        "score": "Score after the last stage.",
        "inliers": "Inliers of the pair; 0 where it was not verified.",
        "confident": "Whether these are more than `verify.min_inliers`.",
        "probability": "That the photo shows the query's landmark; only with a calibration.",
        "stage": "The first stage whose list holds the photo.",
    },
    "rankings": {
        "stage": "The stage after which the list stood so.",
        **_PAIR,
        "rank": "Place in the list, from 1.",
        "score": "Score after this stage.",
    },
    "pairs": {
        **_PAIR,
        "confident": "Whether the pair is a confident match.",
        "probability": "That both show one landmark; only with a calibration.",
        "inliers": _ANYWHERE["inliers"],
        **{name: _OF_STEP["verify"][name] for name in ("tentative", "transform", "matches")},
    },
    "features": {
        **_PHOTO,
        "features": "How many features the photo has.",
        "xy": f"Of each feature: {_FEATURE['xy'][0].lower()}{_FEATURE['xy'][1:]}",
        "scale": "Of each: size of the described patch in pixels.",
        "orientation": "Of each: its direction in radians.",
        "score": "Of each: how strong it is.",
        "descriptor": "Of each: local descriptor, as it is stored.",
    },
    "descriptors": {**_PHOTO, "descriptor": _ANYWHERE["descriptor"]},
    "graph": {
        "photo": "Id of a photo of the gallery.",
        "photo_path": "Its path below the gallery's folder.",
        "rank": "Place among its nearest photos, from 1.",
        "neighbour": "Id of the near photo.",
        "neighbour_path": "Its path below the gallery's folder.",
        "similarity": "Cosine of the angle between the two descriptors.",
    },
}
"""The columns of `lmr export`, and what each means."""


def meaning(step: str, column: str) -> str:
    """Return what a column of a step's shards means; empty where nobody has said it.

    Examples
    --------
    >>> meaning("ingest_queries", "width")
    'Width of the upright photo in pixels.'
    """
    name = step.removesuffix("_queries")
    own = _OF_STEP.get(name) or (FURTHER[name][2] if name in FURTHER else {})
    return own.get(column) or _ANYWHERE.get(column, "")
