"""Labels of a gallery: from a file, a list or folders; what is wrong with them is named."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.errors import LmrError
from lmr.steps.photos.listing import Photos
from lmr.steps.recognition.labels import landmarks_of, names_of, read_labels, truth_of


def photos(*paths, role="gallery", labels=()):
    ids = tuple(path.rpartition("/")[2].removesuffix(".jpg") for path in paths)
    return Photos(role, "/photos", ids, paths, ("1 1",) * len(paths), labels=labels)


def csv(folder, text, name="labels.csv"):
    (folder / name).write_text(text)
    return str(folder / name)


def numbers(labels):
    return labels.rows.rows.column("landmark").to_pylist()


def test_of_a_file_and_what_is_odd_about_it(tmp_path):
    url = csv(tmp_path, 'size,id,landmark\n1,a,zoo\n2,"b.jpg",abbey\n3,c,\n4,other,zoo\n')
    labels, news = read_labels(photos("a.jpg", "b.jpg", "c.jpg", "d.jpg"), url)
    assert labels.names == ("abbey", "zoo")
    assert numbers(labels) == [1, 0, -1, -1]
    told = "\n".join(news)
    assert "1 label names no gallery photo: other" in told
    assert "1 gallery photos have no line in the labels" in told
    assert "2 of 4 gallery photos show one of 2 landmarks" in told
    labels.rows.store(str(tmp_path))
    stored = labels.rows.dataset(str(tmp_path))
    assert names_of(stored) == ["abbey", "zoo"]
    assert np.array_equal(landmarks_of(stored), [1, 0, -1, -1])


def test_of_parquet_with_numbers(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "landmark_id": [7, None]}), tmp_path / "l.parquet")
    labels, _ = read_labels(photos("a.jpg", "b.jpg"), str(tmp_path / "l.parquet"))
    assert labels.names == ("7",)
    assert numbers(labels) == [0, -1]


def test_of_folders_and_of_a_list():
    labels, _ = read_labels(photos("St Paul/1.jpg", "St Paul/more/2.jpg", "tower/3.jpg", "none.jpg"), None)
    assert labels.names == ("St%20Paul", "tower")
    assert numbers(labels) == [0, 0, 1, -1]
    labels, _ = read_labels(photos("a/1.jpg", "a/2.jpg", labels=("x", "None")), None)
    assert (labels.names, numbers(labels)) == (("x",), [0, -1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,landmark\nx,zoo\n", "the labels name no photo of this gallery"),
        ("id,landmark\na,zoo\na,zoo\n", "the labels name 1 photos twice"),
        ("id,landmark\na,the zoo\n", "1 landmarks cannot stand in a submission"),
        ("id,landmark\na,\n", "no photo of the gallery has a landmark"),
        ("photo,landmark\na,zoo\n", "has no columns id and landmark"),
        ("id,landmark\na,zoo,1\n", "line 2 of .* has no id and 2 columns"),
        ("", "holds no lines"),
    ],
)
def test_wrong_labels_are_named(tmp_path, text, message):
    with pytest.raises(LmrError, match=message):
        read_labels(photos("a.jpg", "b.jpg"), csv(tmp_path, text))


def test_a_gallery_without_folders_needs_labels():
    with pytest.raises(LmrError, match=re.escape("give --labels a CSV id,landmark")):
        read_labels(photos("a.jpg"), None)


def test_the_truth_is_checked_against_queries_and_labels(tmp_path):
    labels, _ = read_labels(photos("zoo/a.jpg"), None)
    queries = photos("q1.jpg", "q2.jpg", "q3.jpg", role="queries")
    truth, news = truth_of(csv(tmp_path, "id,landmark\nq1,zoo\nq2,\nq3,mill\n"), queries, labels)
    assert truth.rows.to_pydict() == {"id": ["q1", "q2", "q3"], "landmarks": [["zoo"], [], ["mill"]]}
    assert len(news) == 1
    assert "1 query shows a landmark that no gallery photo is labelled with" in news[0]
    with pytest.raises(LmrError, match="names 1 queries that are not there"):
        truth_of(csv(tmp_path, "id,landmark\nq1,zoo\nq9,zoo\n"), queries, labels)
    with pytest.raises(LmrError, match="no landmark for any of these queries"):
        truth_of(csv(tmp_path, "id,landmark\nq1,\n"), queries, labels)
