"""The reference is what the code says: `python docs/reference.py` writes it anew."""

import dataclasses
import re

import pytest

from lmr.steps.groups.group import GroupsSettings
from tests.support.docs import ROOT, script
from workflows.descriptors import DescriptorSettings
from workflows.recognition import RecognitionSettings
from workflows.retrieval import RetrievalSettings

reference = script("reference")
MADE = reference.pages()
AGAIN = "run: python docs/reference.py"


@pytest.mark.parametrize("page", list(MADE), ids=lambda page: page.name)
def test_a_page_that_is_made_from_the_code_is_current(page):
    assert page.read_text() == MADE[page], AGAIN


def test_every_setting_has_its_sentence():
    page = (reference.DOCS / "reference" / "settings.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+\.", line)]
    assert not [row for row in rows if row.rstrip("| ").endswith("`")], "a setting without a sentence"
    for group in dataclasses.fields(RetrievalSettings):
        assert f"\n## {group.name}\n" in page
        for field in dataclasses.fields(group.default_factory):
            assert f"| `{group.name}.{field.name}` |" in page


def test_the_settings_of_every_workflow_and_of_groups_are_listed():
    page = (reference.DOCS / "reference" / "settings.md").read_text()
    for kind in (RecognitionSettings, DescriptorSettings, GroupsSettings):
        for group in dataclasses.fields(kind):
            for field in dataclasses.fields(group.default_factory):
                assert page.count(f"| `{group.name}.{field.name}` |") == 1, (kind, group.name, field.name)


def test_every_option_and_argument_has_its_sentence():
    silent = [
        (name, parameter.name)
        for name, command in reference.commands()
        for parameter in command.params
        if parameter.name != "help" and not parameter.hidden and not (parameter.help or "").strip()
    ]
    assert not silent


def test_a_text_is_found_under_a_field_in_a_list_of_attributes_and_in_a_base_class():
    @dataclasses.dataclass
    class Base:
        """A base.

        Attributes
        ----------
        listed, also
            Stands in
            the list.
        """

        listed: int = 0
        also: int = 0

    @dataclasses.dataclass
    class Kind(Base):
        under: int = 0
        """Stands under it."""

    assert reference.field_texts(Kind) == {
        "listed": "Stands in the list.",
        "also": "Stands in the list.",
        "under": "Stands under it.",
    }


def test_every_environment_variable_that_the_code_names_is_explained():
    found = reference.variables_in(ROOT / "lmr")
    assert {"LMR_CACHE", "LMR_TLS", "LMR_WEIGHTS"} <= found
    assert found == {name for name in reference.ENVIRONMENT if name.startswith("LMR_")}
