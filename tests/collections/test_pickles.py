"""Ground truth in pickles is read as data: what it names is never called."""

import pickle
import pickletools

import numpy as np
import pytest

from lmr.collections.pickles import read_truth_pickle
from lmr.errors import LmrError
from tests.support.published import truth

PLAIN = {
    "imlist": ["all_souls_000001", "all_souls_000002", "keble_000003", "oxford_000004"],
    "qimlist": ["all_souls_000013", "keble_000245"],
    "gnd": [
        {"easy": [0], "hard": [1], "junk": [3], "bbx": [2.0, 1.0, 22.0, 16.0]},
        {"easy": [], "hard": [2], "junk": [], "bbx": [0.0, 0.0, 40.0, 30.0]},
    ],
}


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read_with_arrays_and_with_lists(protocol, arrays):
    assert read_truth_pickle(pickle.dumps(truth(arrays), protocol), "gnd.pkl") == PLAIN


def test_arrays_of_other_machines_and_scalars_are_read():
    found = truth()
    found["gnd"][0]["easy"] = np.array([0], ">i4")
    found["gnd"][0]["bbx"] = [np.float32(2), np.float64(1), np.int64(22), np.uint8(16)]
    assert read_truth_pickle(pickle.dumps(found), "gnd.pkl") == PLAIN


def test_what_older_numpy_and_python_2_wrote_is_read():
    old = pickle.dumps(truth(), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core" in old
    assert read_truth_pickle(old, "gnd.pkl") == PLAIN


class Trap:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "operator.attrgetter"])
def test_code_is_refused_by_name_and_not_run(name, tmp_path):
    import importlib

    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    mark = tmp_path / "ran"
    argument = f"open({str(mark)!r}, 'w')" if name == "builtins.eval" else f"touch {mark}"
    data = pickle.dumps({**truth(), "more": Trap(function, argument)})
    with pytest.raises(LmrError, match="names code that no ground truth needs; it was not run") as caught:
        read_truth_pickle(data, "gnd.pkl")
    assert attribute in caught.value.got
    assert not mark.exists()


def test_arrays_of_objects_are_refused():
    found = truth()
    found["gnd"][0]["easy"] = np.array([0, "x"], object)
    with pytest.raises(LmrError, match="is damaged") as caught:
        read_truth_pickle(pickle.dumps(found), "gnd.pkl")
    assert "something else than numbers" in caught.value.got


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda t: t.pop("gnd"), "KeyError: 'gnd'"),
        (lambda t: t["qimlist"].pop(), "2 lists for 1 queries"),
        (lambda t: t["gnd"][0].update(easy=[4]), "photo 4 of 4"),
        (lambda t: t["gnd"][0].update(bbx=[1, 2]), "a box of 2 numbers"),
        (lambda t: t["gnd"][0].pop("bbx"), "bbx"),
    ],
)
def test_another_form_is_told(change, got):
    found = truth()
    change(found)
    with pytest.raises(LmrError, match="is no ground truth of this form") as caught:
        read_truth_pickle(pickle.dumps(found), "gnd.pkl")
    assert got in caught.value.got


def test_damaged_bytes_are_an_error_of_ours_wherever_they_are_damaged():
    whole = pickle.dumps(truth(), 2)
    assert pickletools.genops(whole)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        try:
            read_truth_pickle(bytes(data[: rng.integers(1, len(data) + 1)]), "gnd.pkl")
        except LmrError:
            continue
