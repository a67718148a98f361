"""What pages name is there: settings, files of the repository, names of Python, variables, messages."""

import dataclasses
import importlib
import re

import pytest

from lmr.steps.groups.group import GroupsSettings
from tests.support.docs import DOCS, ROOT, pages
from workflows.descriptors import DescriptorSettings
from workflows.recognition import RecognitionSettings
from workflows.retrieval import RetrievalSettings

PAGES = [page for page in pages() if page.name != "step.md"]  # its example names files of the reader's own
ROOMS = "lmr|tests|docs|benchmarks|workflows|deploy|docker|examples"
FILES = {"csv", "html", "json", "parquet", "svg", "toml"}  # `graph.svg` is no setting
SETTINGS: dict[str, set[str]] = {}
for kind in (DescriptorSettings, GroupsSettings, RecognitionSettings, RetrievalSettings):
    for group in dataclasses.fields(kind):
        names = {field.name for field in dataclasses.fields(group.default_factory)}
        SETTINGS.setdefault(group.name, set()).update(names)


def unknown_settings(text: str) -> list[str]:
    named = re.findall(r"(?:--set \"?|`)([a-z_]+)\.([a-z_]+)(?=[`=])", text)
    groups = [(group, name) for group, name in named if group in SETTINGS and name not in FILES]
    return [f"{group}.{name}" for group, name in groups if name not in SETTINGS[group]]


def lost_files(text: str) -> list[str]:
    named = re.findall(rf"`((?:{ROOMS})/[\w./-]+?)/?`", text)
    return [path for path in named if not (ROOT / path).exists() and "." in path.rpartition("/")[2]]


def unknown_names(text: str) -> list[str]:
    return [name for name in re.findall(r"`(lmr(?:\.\w+)+)", text) if not is_there(name)]


def is_there(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_files_and_names_of_a_page_are_there(page):
    text = page.read_text()
    assert not unknown_settings(text)
    assert not lost_files(text)
    assert not unknown_names(text)


def test_what_is_not_there_is_seen():
    assert unknown_settings("`verify.min_inlier` and --set expand.tops=3") == [
        "verify.min_inlier",
        "expand.tops",
    ]
    assert lost_files("`tests/no_such_file.py` and `lmr/errors.py`") == ["tests/no_such_file.py"]
    assert unknown_names("`lmr.retrieve` and `lmr.retreive(...)`") == ["lmr.retreive"]


def source() -> str:
    """Return the source of the package, with strings that go on in the next line joined."""
    files = (path for room in ("lmr", "workflows") for path in (ROOT / room).rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    text, said = (DOCS / "guides" / "troubleshooting.md").read_text(), source()
    heads = [
        head for line in re.findall(r"^\*\*(.+)\*\*$", text, re.MULTILINE) for head in line.split("**, **")
    ]
    assert len(heads) > 60
    # What a message fills in, such as the name of a file, stands as an ellipsis on the page.
    parts = [part.strip() for head in heads for part in re.split(r"…|: ", head)]
    assert not [part for part in parts if part and part not in said]


def test_every_variable_of_a_page_is_read_by_the_code_or_set_in_a_place():
    known = set(re.findall(r"LMR_[A-Z_]+", source()))
    for places in ("deploy", "docker"):
        for path in (ROOT / places).rglob("*"):
            if path.suffix in (".env", ".yaml", ".sh"):
                known |= set(re.findall(r"LMR_[A-Z_]+", path.read_text()))
    known |= {"LMR_SHARED"}  # of the tests alone
    for page in PAGES:
        assert set(re.findall(r"\bLMR_[A-Z_]+", page.read_text())) <= known, page
