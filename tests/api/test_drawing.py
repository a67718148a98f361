"""`lmr graph`: boxes and edges are the workflow's, and no box lies on another."""

import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from lmr.api.drawing import draw_workflow
from lmr.errors import LmrError
from lmr.steps.drawing import layered
from tests.support.world import lmr as command

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*arguments):
    """The boxes' names to their places, the stages' labels, and the number of edges of a drawing."""
    root = ElementTree.fromstring(draw_workflow(*arguments))
    boxes = [box for box in root.iter(f"{SVG}rect") if box.get("class") != "paper"]
    texts = [text for text in root.iter(f"{SVG}text") if text.get("class") is None]
    names = {
        text.text: (float(box.get("x")), float(box.get("y"))) for text, box in zip(texts, boxes, strict=True)
    }
    stages = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "stage"]
    edges = [path for path in root.iter(f"{SVG}path") if (path.get("class") or "").startswith("edge")]
    return names, stages, edges, root


def test_the_default_workflow_is_drawn_as_it_is():
    names, stages, edges, root = drawn("retrieval")
    assert {
        "photos_gallery",
        "ingest",
        "extract_local",
        "search",
        "verify",
        "diffuse",
        "evaluate",
    } <= names.keys()
    assert len(names) == 24 + 3
    assert sorted(stages) == [
        "1 local search",
        "2 spatial verification",
        "3 global search",
        "4 query expansion",
        "5 regional diffusion",
    ]
    for before, after in (("ingest", "extract_local"), ("search", "verify"), ("verify", "rerank")):
        assert names[before][1] < names[after][1]
    for (x, y), (u, v) in itertools.combinations(names.values(), 2):
        assert y != v or abs(x - u) >= 208, "boxes of one layer lie on one another"
    assert len(edges) > 30
    width = float(root.get("width"))
    assert all(x >= 0 and x + 208 <= width for x, _ in names.values())


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("descriptors",), "own"),
        (("retrieval", "gem"), "extract_global"),
        (("retrieval", None, ["diffuse.method=offline"]), "columns"),
        (("retrieval", None, ["search.method=asmk"]), "asmk"),
    ],
)
def test_other_workflows_presets_and_settings_are_drawn(arguments, more):
    names = drawn(*arguments)[0]
    assert any(more in name for name in names), sorted(names)


def test_an_edge_goes_around_what_stands_between():
    places, paths = layered(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])
    assert places["a"][1] < places["b"][1] < places["c"][1]
    ((_, y), *_), lane = paths["a", "c"], paths["a", "c"][1]
    assert y > places["a"][1]
    assert not places["b"][0] < lane[0] < places["b"][0] + 208


def test_the_command_writes_the_file_and_tells_what_is_wrong(tmp_path):
    file = tmp_path / "steps.svg"
    assert command("graph", "retrieval", "-o", str(file)) == f"{file}\n"
    assert file.read_text().startswith("<svg ")
    with pytest.raises(LmrError, match="no such workflow") as told:
        command("graph", "retreival", "-o", str(file))
    assert "did you mean retrieval?" in told.value.fix
    with pytest.raises(LmrError, match="cannot be written"):
        command("graph", "retrieval", "-o", str(tmp_path / "none" / "steps.svg"))


def test_recognition_is_drawn_without_labels():
    names, stages, _, _ = drawn("recognition")
    assert {"labels", "recognise", "frequency", "verify_labels"} <= names.keys()
    assert "1 local search" in stages
