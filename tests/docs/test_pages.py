"""What pages show is so: commands exist, links lead somewhere, and what a page marks as running runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from lmr.features.extractors import GlobalRequest, LocalRequest, OwnCode, global_extractor, local_extractor
from tests.support.docs import DOCS, ROOT, blocks, commands, pages, script

reference = script("reference")
PAGES = pages()
REFUSAL = typer.BadParameter.mro()[2]  # of all that a command line may be refused for
SIDES = ["--gallery", "photos/gallery", "--queries", "photos/queries"]
SOLVED = ["--solution", "photos/solution.csv"]
SMALL = ["--landmarks", "2", "--queries", "3", "--distractors", "2", "--long-side-px", "256"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def known():
    """Every command by its words."""
    return {tuple(name.split()[1:]): command for name, command in reference.commands()}


def refused(words, known):
    """Return why the command line would refuse these words; empty when it would not."""
    if words[0] in ("version", "--help") or words[1:2] == ["--help"]:
        return ""
    found = [name for name in known if tuple(words[: len(name)]) == name]
    if not found:
        group = tuple(word for word in words if word != "…")
        return "" if any(name[: len(group)] == group for name in known) else "no such command"
    command, rest = known[found[0]], words[len(found[0]) :]
    options = {option for parameter in command.params for option in (*parameter.opts, "--help")}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in options]
    if unknown:
        return f"no such option: {unknown[0]}"
    if "…" in rest or "..." in rest:
        return ""
    try:
        command.make_context(" ".join(found[0]), list(rest))
    except REFUSAL as error:
        return str(error) or "refused"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_block_is_one(page, known):
    wrong = [
        (" ".join(words), why)
        for block in blocks(page)
        if block.language in ("", "bash")
        for words in commands(block.text)
        if (why := refused(words, known))
    ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_within_a_sentence_has_its_options(page, known):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for code in re.findall(r"`(lmr [a-z][^`]*)`", text):
        for words in commands(code.replace("COMMAND", "run")):
            why = refused([*words, "…"], known)
            if why and not re.search(r"[|,]", code):
                wrong.append((code, why))
    assert not wrong


def test_a_command_that_is_none_is_seen(known):
    assert refused(["run", "retrieval", "--no-such-option", "…"], known)
    assert refused(["fly"], known)
    assert "out" in refused(["run", "retrieval"], known)
    assert refused(["cluster", "worker", "tls://host:8786", "--workers", "many"], known)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    assert not [str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if str(p.relative_to(DOCS)) not in menu]


def test_pictures_are_small_and_shown():
    pictures = [p for p in (DOCS / "pictures").iterdir() if p.is_file()]
    text = "".join(page.read_text() for page in PAGES)
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 60_000, picture
        assert picture.name in text, picture


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def shown(page: str, title: str) -> str:
    (text,) = [block.text for block in blocks(DOCS / page) if block.title == title]
    return text


def test_the_extractors_of_the_guide_are_such(tmp_path):
    for title in ("colours.py", "corners.py"):
        (tmp_path / title).write_text(shown("guides/extractor.md", title))
    photo = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    colours = OwnCode.read(f"{tmp_path}/colours.py:Colours")
    (found,) = global_extractor(colours, GlobalRequest())([photo])
    counts = np.bincount((photo // 64).reshape(-1, 3).astype(int) @ [16, 4, 1], minlength=64)
    np.testing.assert_allclose(found.descriptor, counts / np.linalg.norm(counts), rtol=1e-5)
    corners = OwnCode.read(f"{tmp_path}/corners.py:Corners")
    (local,) = local_extractor(corners, LocalRequest(max_features=50))([photo])
    assert local.descriptor.shape == (len(local.xy), 256)
    assert 0 < len(local.xy) <= 50
    assert (np.diff(local.score) <= 0).all()


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """Run what the first page types, on a smaller world and in one process; return the folder."""
    folder = tmp_path_factory.mktemp("reader")
    for page in ("start/first-run.md", "reproduce.md"):
        for block in blocks(DOCS / page):
            if block.runs:
                for words in commands(block.text):
                    lmr(folder, *words, *(SMALL if words[0] == "render" else []))
    return folder


def lmr(folder, *words):
    if words[0] == "run":
        words = (*words, "--workers", "0")
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    command = [sys.executable, "-m", "lmr", *words]
    done = subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first of them renders, compiles and runs
def test_the_first_run_leaves_what_its_page_names(typed):
    for name in ("submission.csv", "report/index.html", "scores.json"):
        assert (typed / "run" / name).is_file()
    again = lmr(typed, "run", "retrieval", *SIDES, "--out", "run", *SOLVED, "--set", "expand.top=10")
    assert "nothing was left to do" in again


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_python_of_the_pages_runs(typed, monkeypatch, capsys):
    monkeypatch.chdir(typed)
    marked = [b for b in blocks(DOCS / "start/your-photos.md") if b.runs and b.language == "python"]
    assert marked
    for block in marked:
        exec(compile(block.text, block.page.name, "exec"), {})
    assert "inliers" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_workflow_and_the_step_of_the_guides_run(typed):
    (typed / "cut.py").write_text(shown("guides/step.md", "cut.py"))
    (typed / "by_look.py").write_text(shown("guides/workflow.md", "by_look.py"))
    told = lmr(typed, "run", "by_look.py", *SIDES, "--out", "look", *SOLVED, "--set", "cut.share=0.7")
    assert "shortened" in told
    lists = [
        line.partition(",")[2].split()
        for line in (typed / "look/submission.csv").read_text().splitlines()[1:]
    ]
    assert lists
    assert max(map(len, lists)) < len(list((typed / "photos/gallery").iterdir()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_columns_of_every_step_are_those_of_a_run(typed):
    page = DOCS / "reference" / "files.md"
    again = "run `retrieval` with a solution, then: python docs/reference.py --run RUN"
    lmr(typed, "run", "retrieval", *SIDES, "--out", "run", *SOLVED)
    assert page.read_text() == reference.filled(
        page.read_text(), reference.columns_table(str(typed / "run"))
    ), again
