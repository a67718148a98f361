"""Measures the prose of the docs: `python docs/prose.py` tells how long its sentences are.

Prose is what remains without code, tables, headings, pictures and what another script wrote. A number is a
word with a digit in it. `tests/docs/test_prose.py` holds the limits.
"""

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LONGEST", "MEDIAN", "NUMBERS", "Prose", "measured", "sentences"]

DOCS = Path(__file__).parent
GUIDES = ("start", "concepts", "stages", "guides")
MEDIAN, LONGEST, NUMBERS = 18, 40, 3.0
"""Words of the median sentence and of the longest one; numbers per 100 words."""


@dataclass(frozen=True)
class Prose:
    """What was measured of a page.

    Attributes
    ----------
    median
        Words of the median sentence.
    longest
        The sentence with most words.
    numbers
        Numbers per 100 words.
    """

    median: float
    longest: str
    numbers: float


def pages() -> Iterator[Path]:
    """Yield the pages whose prose is held to the limits."""
    yield DOCS / "index.md"
    for folder in GUIDES:
        yield from sorted((DOCS / folder).glob("*.md"))


def sentences(page: str) -> list[str]:
    """Return the sentences of a page."""
    page = re.sub(r"<!-- made by .*?<!-- end -->", "", page, flags=re.DOTALL)
    page = re.sub(r"^```.*?^```", "\n", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"!\[.*?\]\(.*?\)", "", page)
    page = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", page)
    page = re.sub(r"`[^`]*`", "code", page)
    blocks, lines = [], []
    for line in [*page.splitlines(), ""]:
        text = line.strip()
        apart = not text or text.startswith(("#", "|", "<", "!!!"))
        if apart or text.startswith(("- ", "* ", ":   ")) or re.match(r"\d+\. ", text):
            blocks.append(" ".join(lines))
            lines = []
        if not apart:
            lines.append(re.sub(r"^(?:[-*:]|\d+\.) +", "", text))
    blocks.append(" ".join(lines))
    found = [part for block in blocks for part in re.split(r"(?<=[.!?])[*\"”)]* +(?=[A-Z`*\"“])", block)]
    return [sentence for sentence in (part.strip("* ") for part in found) if sentence]


def measured(page: str) -> Prose:
    """Measure a page."""
    found = sentences(page)
    words = [len(sentence.split()) for sentence in found]
    numbers = sum(bool(re.search(r"\d", word)) for sentence in found for word in sentence.split())
    longest = found[words.index(max(words))]
    return Prose(statistics.median(words), longest, 100 * numbers / sum(words))


def main() -> None:
    """Print a line per page."""
    for path in pages():
        prose = measured(path.read_text())
        length = len(prose.longest.split())
        name = path.relative_to(DOCS)
        mark = "  <-- " + prose.longest if length > LONGEST else ""
        print(
            f"{name!s:32} median {prose.median:4.1f}  longest {length:3}  numbers {prose.numbers:4.1f}{mark}"
        )


if __name__ == "__main__":
    main()
