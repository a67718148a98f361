"""The pages of the docs, their code blocks, and the scripts that make them."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNS = "<!-- runs -->"
_BLOCK = re.compile(
    r"^(?P<mark><!-- runs -->\n)?```(?P<info>[^\n]*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    page
        Where it stands.
    language
        What its fence says; empty where it says nothing, as of commands.
    title
        The name of the file that it shows, if any.
    text
        What it holds.
    runs
        Whether the page marks it as one that runs here.
    """

    page: Path
    language: str
    title: str
    text: str
    runs: bool


def script(name: str) -> ModuleType:
    """Import `docs/NAME.py`; docs/ is no package."""
    found = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # where dataclasses look for the module of a class
    found.loader.exec_module(module)
    return module


def pages() -> list[Path]:
    """Return every page for readers."""
    places = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*places, *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    for one in _BLOCK.finditer(page.read_text()):
        language, _, rest = one["info"].partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        found.append(Block(page, language, title[1] if title else "", one["text"], bool(one["mark"])))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every `lmr` command of a block or of inline code."""
    text = re.sub(r"\$\([^)]*\)", "VALUE", text.replace("\\\n", " "))
    lines = text.splitlines()
    # A transcript has its commands behind a dollar sign, and what they printed besides.
    typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
    for line in typed:
        line = line.strip().removeprefix(".venv/bin/")
        if line.startswith("lmr "):
            words = shlex.split(line, comments=True)
            stop = next((i for i, word in enumerate(words) if word in ("|", "&", ">", "&&")), len(words))
            yield words[1:stop]
