"""A run's own scores by the field's protocols: whole rankings, junk taken out, what papers print beside."""

import json
from pathlib import Path

import numpy as np
import pytest

import lmr
from lmr.api.scoring import published_of
from lmr.cli.output.protocol_tables import protocol_tables
from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols.revisited import map_revisited
from lmr.steps.results.columns import FURTHER, meaning
from lmr.steps.results.folder.files import read_notes
from lmr.steps.results.folder.protocol_files import read_protocols, read_published
from tests.support.descriptor_clusters import clusters
from tests.support.world import lmr as command_line

GALLERY, QUERIES = [f"g{i:03d}" for i in range(180)], [f"q{i}" for i in range(6)]
REVISITED = ("revisited-easy", "revisited-medium", "revisited-hard")
VECTORS = clusters(len(GALLERY), 16, seed=2, noise=0.5)
TRUTHS = [
    {
        "easy": [GALLERY[i], GALLERY[i + 6]],
        # What lies farther than a list of 100 reaches.
        "hard": [GALLERY[i + 12], GALLERY[-1 - i]],
        "junk": [GALLERY[i + 18]],
    }
    for i in range(len(QUERIES))
]


def run(out, **more):
    rng = np.random.default_rng(5)
    return lmr.run_workflow(
        "descriptors",
        gallery_descriptors=VECTORS,
        gallery_ids=GALLERY,
        query_descriptors=VECTORS[:6] + 0.2 * rng.standard_normal((6, 16)),
        query_ids=QUERIES,
        out=out,
        workers=0,
        progress=False,
        **more,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    both = list(zip(QUERIES, TRUTHS, strict=True))
    rows = [",".join([query, *map(" ".join, one.values())]) for query, one in both]
    (folder / "truth.csv").write_text("\n".join(["id,easy,hard,junk", *rows, ""]))
    solution = [f"{query},{' '.join(one['easy'] + one['hard'])}" for query, one in both]
    (folder / "solution.csv").write_text("\n".join(["id,images", *solution, ""]))
    return folder


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), score=REVISITED, truth=str(files / "truth.csv"))


def test_every_stage_is_scored_by_whole_rankings_as_the_published_code_has_it(whole):
    means = read_protocols(whole.datasets)
    assert list(means) == [*REVISITED]
    assert whole.settings["rank"]["depth"] == len(GALLERY)
    for stage in whole.stages:
        lists = whole.ranking(stage).groupby("query")["photo"].apply(list)
        assert all(len(lists[query]) == len(GALLERY) for query in QUERIES)
        right = map_revisited([lists[query] for query in QUERIES], TRUTHS)
        for protocol, scores in zip(REVISITED, (right.easy, right.medium, right.hard), strict=True):
            assert means[protocol]["map"][stage] == pytest.approx(scores.mean)
            precision = [means[protocol][f"mp@{k}"][stage] for k in (1, 5, 10)]
            assert precision == pytest.approx(scores.mean_precision)
    told = json.loads(Path(whole.root, "protocols.json").read_text())
    assert told == {p: {m: pytest.approx(s) for m, s in metrics.items()} for p, metrics in means.items()}
    assert not [note for note in read_notes(whole.datasets) if "no list" in note]


def test_the_reference_names_the_columns(whole):
    steps = {step.step: step.read(0).column_names for step in whole.datasets.steps}
    for name in ("protocols", "own_descriptors", "own_descriptors_queries"):
        assert steps[name] == list(FURTHER[name.removesuffix("_queries")][2])
    assert all(meaning("protocols", name) for name in steps["protocols"])


def test_a_list_that_ends_early_says_what_it_loses(files, whole, tmp_path):
    short = run(tmp_path, score=REVISITED, truth=str(files / "truth.csv"), settings={"rank": {"depth": 100}})
    assert short.settings["rank"]["depth"] == 100
    lists = short.ranking("diffuse").groupby("query")["photo"].apply(list)
    wanted = [set(one["easy"] + one["hard"]) for one in TRUTHS]
    lost = sum(len(some - set(lists[q])) for q, some in zip(QUERIES, wanted, strict=True))
    assert lost > 0
    (note,) = [one for one in read_notes(short.datasets) if "no list" in one]
    assert f"revisited-medium after diffuse: {lost} right photos stand in no list" in note
    assert "the longest list has 100 photos" in note
    medium = [read_protocols(one.datasets)["revisited-medium"]["map"]["diffuse"] for one in (short, whole)]
    assert medium[0] < medium[1]


def test_other_protocols_are_scored_by_the_solution(files, tmp_path):
    found = run(
        tmp_path, solution=str(files / "solution.csv"), score=["recall@1,5", "map_at_5", "map_at_100"]
    )
    means = read_protocols(found.datasets)
    assert [*means] == ["recall@1,5", "map_at_5", "map_at_100"]
    assert [*means["recall@1,5"]] == ["recall@1", "recall@5"]
    assert means["map_at_100"]["map_at_100"] == pytest.approx(found.scores)
    assert found.settings["rank"]["depth"] == 100
    lists = found.ranking("rank").groupby("query")["photo"].apply(list)
    hits = [
        len(set(lists[q][:5]) & set(one["easy"] + one["hard"])) / 4
        for q, one in zip(QUERIES, TRUTHS, strict=True)
    ]
    assert means["recall@1,5"]["recall@5"]["rank"] == pytest.approx(np.mean(hits))
    kept = list((tmp_path / "results").rglob("protocols.json"))
    assert len(kept) == 1
    # The next run is scored by none, and says nothing of this one's.
    run(tmp_path, solution=str(files / "solution.csv"))
    assert not (tmp_path / "protocols.json").exists()
    assert kept[0].exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"score": ["revisited-medium"]}, "needs to know more than which photos are right"),
        ({"score": ["recall@5"]}, "needs to know which photos are right"),
        ({"score": ["gap"]}, "names of landmarks"),
        ({"score": ["revisited-mid"]}, "unknown protocol"),
        (
            {"score": ["revisited-hard", "classic"], "truth": "truth.csv"},
            "both of the classic and of the rev",
        ),
        ({"truth": "truth.csv"}, "no protocol to score by"),
        ({"published": "mine.csv"}, "belong to a data set"),
    ],
)
def test_what_does_not_fit_is_told(more, says, tmp_path):
    with pytest.raises(SettingsError, match=says):
        run(tmp_path, **more)


def test_a_truth_of_other_photos_is_refused(tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("id,easy,hard,junk\nq0,g000,nobody,\nstranger,g001,,\n")
    with pytest.raises(LmrError, match="queries that are not there and 1 photos that are not in the gallery"):
        run(tmp_path / "run", score=["revisited-medium"], truth=str(truth))


def test_published_figures_stand_beside_the_runs_own(files, tmp_path):
    own = tmp_path / "mine.csv"
    own.write_text(
        "method,data_set,protocol,value,paper,table,source\n"
        'Best,made,revisited-medium,99.9,"A et al., 2020",Table 3,\n'
        'Best,made,revisited-hard,98,"A et al., 2020",Table 3,\n'
        "[bold]Worst\x1b[31m,made,revisited-medium,0.1,B 2021,,\n"
        "Other,another,revisited-medium,50,C 2022,,\n"
        "Unasked,made,classic,50,C 2022,,\n"
    )
    found = run(
        tmp_path / "run",
        score=REVISITED,
        truth=str(files / "truth.csv"),
        dataset="made",
        published=str(own),
    )
    rows = read_published(found.datasets)
    assert [(row.method, row.own) for row in rows] == [
        ("Best", False),
        ("this run", True),
        ("[bold]Worst\x1b[31m", False),
    ]
    medium = read_protocols(found.datasets)["revisited-medium"]["map"]["diffuse"]
    assert rows[1].values["revisited-medium"] == pytest.approx(100 * medium, abs=0.005)
    assert rows[0].values == {"revisited-medium": 99.9, "revisited-hard": 98.0}
    assert rows[0].cited == "A et al., 2020, Table 3"
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "A et al., 2020, Table 3" in page
    assert "this run" in page
    assert "\x1b" not in page
    assert "revisited-medium" in page
    assert len(protocol_tables(found.datasets)) == 2
    assert lmr.open_run(tmp_path / "run").datasets.protocols == found.datasets.protocols


def test_the_command_line_scores_and_prints(files, tmp_path):
    np.save(tmp_path / "g.npy", VECTORS)
    np.save(tmp_path / "q.npy", VECTORS[:6])
    (tmp_path / "g.txt").write_text("\n".join(GALLERY))
    (tmp_path / "q.txt").write_text("\n".join(QUERIES))
    told = command_line(
        *(
            "run",
            "descriptors",
            "--gallery-descriptors",
            tmp_path / "g.npy",
            "--gallery-ids",
            tmp_path / "g.txt",
        ),
        *("--query-descriptors", tmp_path / "q.npy", "--query-ids", tmp_path / "q.txt", "--workers", 0),
        *("--score", "revisited-hard", "--truth", files / "truth.csv", "--out", tmp_path / "run"),
    )
    assert "revisited-hard score whole rankings: rank.depth = 180" in told
    assert "by protocol" in told
    assert "mp@10" in told


def test_a_data_set_that_is_known_has_figures_that_come_along():
    for name in ("revisited-oxford", "revisited-paris"):
        figures = published_of(name, None)
        assert len({one["method"] for one in figures}) >= 8
        assert all(one["paper"] and one["source"] for one in figures)
    assert published_of("somebody's", None) == []
