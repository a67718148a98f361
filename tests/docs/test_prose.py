"""Pages for people have short sentences and few numbers."""

import pytest

from tests.support.docs import DOCS, script

prose = script("prose")


@pytest.mark.parametrize("page", list(prose.pages()), ids=lambda page: str(page.relative_to(DOCS)))
def test_sentences_are_short_and_numbers_are_few(page):
    found = prose.measured(page.read_text())
    assert found.median < prose.MEDIAN
    assert len(found.longest.split()) <= prose.LONGEST, found.longest
    assert found.numbers < prose.NUMBERS


def test_what_counts_as_prose():
    page = (
        "# Head of 9 words\n\nOne sentence. Two [linked words](x.md) here, `and.code 7`.\n\n"
        "```\nlmr run 1 2 3\n```\n\n| a | 5 |\n|---|---|\n\n- A point.\n  It goes on.\n- Another 6.\n"
    )
    assert prose.sentences(page) == [
        "One sentence.",
        "Two linked words here, code.",
        "A point.",
        "It goes on.",
        "Another 6.",
    ]
    assert prose.measured(page).numbers == pytest.approx(100 / 14)


def test_a_long_sentence_and_many_numbers_are_seen():
    found = prose.measured("Word " * 41 + "1. Then 2 and 3.")
    assert len(found.longest.split()) == 42 > prose.LONGEST
    assert found.numbers > prose.NUMBERS
