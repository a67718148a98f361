"""Retrieve, change a setting, and compare what both runs have found.

    python examples/compare_settings.py            # on a small rendered world
    python examples/compare_settings.py FOLDER     # holds gallery/, queries/ and solution.csv

The second run makes only the steps that the setting changes: all others are found in the folder.
Its tables need pandas: pip install -e '.[dataframes]'.
"""

import argparse
import sys
from pathlib import Path
from tempfile import mkdtemp

import lmr
from lmr.testing import World, write_world


def main(folder: Path) -> None:
    """Run twice and print what differs."""

    def retrieve(min_inliers: int) -> lmr.Results:
        return lmr.retrieve(
            folder / "gallery",
            folder / "queries",
            out=folder / "run",
            solution=folder / "solution.csv",
            settings={"verify.min_inliers": min_inliers},
            progress=False,
        )

    few = retrieve(10)
    before = few.matches()  # files in the folder are of the last run; results/ keeps both
    many = retrieve(40)
    after = many.matches()

    print(f"{'':24}{'10 inliers':>12}{'40 inliers':>12}")
    for stage in few.stages:
        print(f"{few.label(stage):24}{few.scores[stage]:12.4f}{many.scores[stage]:12.4f}")
    print(f"{'confident matches':24}{before['confident'].sum():12}{after['confident'].sum():12}")
    both = before.merge(after, on=["query", "rank"], suffixes=("_10", "_40"))
    moved = both[both["photo_10"] != both["photo_40"]]
    print(f"{len(moved)} of {len(both)} places hold another photo")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="holds gallery/, queries/ and solution.csv")
    folder = parser.parse_args().folder
    if folder is not None:
        try:
            main(folder)
        except lmr.LmrError as error:
            sys.exit(f"error {error}")
    else:
        made = Path(mkdtemp())
        write_world(World(landmarks=4, distractors=8, queries=6, long_side_px=320), made)
        main(made)
