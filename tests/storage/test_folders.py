"""Folders of lmr's own: whose they are, what is deleted there, what is told when they cannot be used."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lmr.errors import StorageError
from lmr.storage import folders, mapped
from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset
from lmr.storage.locks import locked

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
STRANGER = 65534


def dataset_in(folder, fingerprint="0123456789ab"):
    made = Dataset(str(folder), "toy", fingerprint, 1)
    made.write(0, table({"x": np.ones((5, 4), np.float32)}))
    return made


def contents(folder):
    """Everything below a folder: path to bytes, of links where they lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_a_cache_in_a_folder_of_the_users_deletes_nothing_of_theirs(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    for name in ("photos", "toy-0123456789ab-x", ".hidden"):
        (mine / name).mkdir(parents=True)
        (mine / name / "description.json").write_text("{}")
        (mine / name / "photo.jpg").write_bytes(b"precious")
    (mine / "letter.txt").write_text("dear")
    before = contents(mine)
    monkeypatch.setenv("LMR_CACHE", str(mine))
    monkeypatch.setenv("LMR_CACHE_GB", "0")
    for i in range(3):
        mapped.stack(dataset_in(tmp_path / f"d{i}", f"{i:012x}"), "x")
    after = contents(mine)
    assert {name: after.get(name) for name in before} == before
    assert {Path(name).parts[0] for name in after.keys() - before.keys()} == {"lmr-unpacked"}
    unpacked = [f.name for f in (mine / "lmr-unpacked").iterdir() if f.is_dir()]
    assert unpacked == [f"toy-{2:012x}-x"]  # trimming took place


def test_a_link_among_what_is_unpacked_is_never_followed(tmp_path, cache_folder, monkeypatch):
    mapped.stack(dataset_in(tmp_path / "d"), "x")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "description.json").write_text("{}")
    (victim / "precious").write_text("x" * 1000)
    unpacked = cache_folder / "lmr-unpacked"
    (unpacked / "toy-ffffffffffff-x").symlink_to(victim)
    (unpacked / "toy-0123456789ab-x" / "inside").symlink_to(victim)
    monkeypatch.setenv("LMR_CACHE_GB", "0")
    mapped.stack(dataset_in(tmp_path / "e", "aaaaaaaaaaaa"), "x")
    assert not (unpacked / "toy-0123456789ab-x").exists()
    assert sorted(f.name for f in victim.iterdir()) == ["description.json", "precious"]


def test_a_folder_that_lmr_did_not_make_is_neither_used_nor_emptied(tmp_path, cache_folder):
    theirs = cache_folder / "lmr-unpacked"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years")
    told_so = r"not a folder that lmr made(.|\n)*thesis\.tex(.|\n)*move what"
    with pytest.raises(StorageError, match=told_so) as told:
        mapped.stack(dataset_in(tmp_path / "d"), "x")
    with pytest.raises(StorageError, match="deletes only in its own"):
        folders.remove(theirs, "thesis.tex")
    assert contents(theirs) == {"thesis.tex": b"years"}
    assert "set LMR_CACHE" in told.value.fix
    theirs.rename(tmp_path / "elsewhere")  # the fix
    assert mapped.stack(dataset_in(tmp_path / "d"), "x").sum() == 20


def test_a_link_in_the_folders_place_is_refused_and_the_fix_works(tmp_path, cache_folder):
    victim = tmp_path / "victim"
    victim.mkdir()
    (cache_folder / "lmr-unpacked").symlink_to(victim)
    with pytest.raises(StorageError, match=r"no link(.|\n)*a link to .*victim(.|\n)*fix: remove the link"):
        mapped.stack(dataset_in(tmp_path / "d"), "x")
    assert list(victim.iterdir()) == []
    (cache_folder / "lmr-unpacked").unlink()
    assert mapped.stack(dataset_in(tmp_path / "d"), "x").sum() == 20


def test_others_have_no_access(cache_folder):
    folder = folders.private_folder("unpacked")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert folders.private_folder("unpacked").stat().st_mode & 0o777 == 0o700


def test_the_cache_lies_in_the_users_own_and_else_in_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("LMR_CACHE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert folders.cache_root() == tmp_path / f"lmr-{os.geteuid()}"  # there is no such home
    (tmp_path / "home").mkdir()
    assert folders.cache_root() == tmp_path / "home" / ".cache" / "lmr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folders.cache_root() == tmp_path / "xdg" / "lmr"
    assert (tmp_path / "xdg" / "lmr").stat().st_mode & 0o777 == 0o700


def test_a_guessed_name_in_the_temporary_folder_is_not_followed_to_the_victims_home(tmp_path, monkeypatch):
    monkeypatch.delenv("LMR_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / f"lmr-{os.geteuid()}").symlink_to(home)
    with pytest.raises(StorageError, match=r"must be a folder and no link(.|\n)*set LMR_CACHE"):
        mapped.stack(dataset_in(tmp_path / "d"), "x")
    assert list(home.iterdir()) == []


@root_only
def test_what_another_user_made_is_refused(tmp_path, cache_folder, monkeypatch):
    dataset = dataset_in(tmp_path / "d")
    (cache_folder / "lmr-unpacked").mkdir(mode=0o777)
    os.chown(cache_folder / "lmr-unpacked", STRANGER, STRANGER)
    with pytest.raises(StorageError, match=r"belongs to another user\ngot: uid 65534\nfix: set LMR_CACHE"):
        mapped.stack(dataset, "x")
    link = tmp_path / "link"
    link.symlink_to(cache_folder)
    os.lchown(link, STRANGER, STRANGER)
    monkeypatch.setenv("LMR_CACHE", str(link))
    with pytest.raises(
        StorageError, match=r"link that another user made\ngot: uid 65534\nfix: set LMR_CACHE"
    ):
        mapped.stack(dataset, "x")
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "own"))  # the fix
    assert mapped.stack(dataset, "x").sum() == 20


UNPACK = """
import sys
from lmr.errors import StorageError
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack
try:
    print(stack(Dataset(sys.argv[1], "toy", "0123456789ab", 1), "x").sum())
except StorageError as error:
    print(error)
"""


def as_stranger(code, *arguments, namespace=(), **environment):
    """Run Python as a user without home, whose folders are the environment's only."""
    command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    return subprocess.run(
        [*namespace, *command, sys.executable, "-c", code, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        cwd="/",
        timeout=200,
    )


@root_only
def test_an_unwritable_cache_is_told_with_a_fix_that_works():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are root's alone
        top = Path(name)
        top.chmod(0o755)
        dataset = dataset_in(top / "d")
        (top / "tmp").mkdir()
        (top / "tmp").chmod(0o1777)
        (top / "cache").mkdir(mode=0o755)
        own = {"TMPDIR": str(top / "tmp")}
        told = as_stranger(UNPACK, dataset.url, LMR_CACHE=str(top / "cache"), **own).stdout
        assert "cannot use the folder" in told
        assert "Permission denied" in told
        assert "fix: set LMR_CACHE (of a worker: --cache) to a folder of your own" in told
        fixed = as_stranger(UNPACK, dataset.url, LMR_CACHE=str(top / "tmp" / "own"), **own)
        assert fixed.stdout == "20.0\n", fixed.stderr


@root_only
def test_a_read_only_file_system_is_told(tmp_path):
    dataset = dataset_in(tmp_path / "d")
    cache = tmp_path / "cache"
    cache.mkdir()
    script = f'mount -t tmpfs tmpfs {cache} && mount -o remount,ro {cache} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", UNPACK, dataset.url],
        env=os.environ | {"LMR_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    if done.returncode:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert "Read-only file system" in done.stdout
    assert "fix: set LMR_CACHE" in done.stdout


def test_a_lock_that_cannot_be_taken_is_told(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError, match=r"cannot lock .*lock(.|\n)*LMR_CACHE"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "target").read_text() == "precious"


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    import errno
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StorageError, match=r"No locks available(.|\n)*on this machine's own disk"):
        mapped.stack(dataset_in(tmp_path / "d"), "x")


def test_one_holds_a_lock_and_the_other_is_told_so(tmp_path):
    with locked(tmp_path / "lock") as held, locked(tmp_path / "lock", wait=False) as other:
        assert (held, other) == (True, False)
    with locked(tmp_path / "lock", wait=False) as free:
        assert free


def test_scratch_space_of_workers_is_this_users_alone(tmp_path, cache_folder):
    from lmr.cluster.client import Where, open_client

    def place(dask_worker):
        return dask_worker.local_directory

    with open_client(Where(workers=1)) as client:
        (where,) = client.run(place).values()
        assert Path(where).is_relative_to(cache_folder / "lmr-scratch")
    assert (cache_folder / "lmr-scratch").stat().st_mode & 0o777 == 0o700


def test_a_limit_that_is_no_size_is_told(tmp_path, monkeypatch):
    for text in ("lots", "nan", "-1"):
        monkeypatch.setenv("LMR_CACHE_GB", text)
        with pytest.raises(StorageError, match="LMR_CACHE_GB is no size"):
            mapped.stack(dataset_in(tmp_path / "d"), "x")
