"""Rounds of a small run while workers, nannies, scheduler, client, links and credentials fail at random.

    python benchmarks/chaos.py --rounds 20 --seed 1

Needs root and `ip` (network namespaces), and the tests' requirements. Prints a line per round; ends with
code 1 unless every round ended with the undisturbed run's result, or with a message and a resume that did.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.chaos import chaos, expected_result, play
from tests.support.network import why_not


def main() -> None:
    """Play the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="Number of the first round, to repeat one.")
    parser.add_argument("--keep", help="Folder for the logs; they are kept.")
    chosen = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(chosen.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        expected = expected_result(folder / "alone")
        bad = 0
        with chaos(folder) as cluster:
            for number in range(chosen.first, chosen.first + chosen.rounds):
                played = play(cluster, number, chosen.seed, expected)
                bad += not played.good
                print(played, flush=True)
    print(f"{chosen.rounds - bad} of {chosen.rounds} rounds were good, seed {chosen.seed}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
