"""What comes with lmr beside its code is found from a checkout and from a wheel, and is the same in both."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lmr.api.workflows import load_workflow
from lmr.cli.files import copy_files
from lmr.cloud.bundle import own_wheel
from lmr.cluster.preflight import facts
from lmr.errors import LmrError, SettingsError
from lmr.shipped import files, shipped, sources

ROOT = Path(__file__).parents[1]


def build(folder, into):
    """Build the wheel of a source tree as pip does; return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (wheel,) = into.glob("lmr-*.whl")
    return wheel


def names_in_sdist(folder, into):
    """Build the source distribution of a source tree; return the paths in it, and its folder unpacked."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (sdist,) = into.glob("lmr-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    unpacked = into / sdist.name.removesuffix(".tar.gz")
    return {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}, unpacked


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run Python with the wheel as it is installed, where no checkout is."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(wheel).extractall(site)

    def python(*arguments):
        command = [sys.executable, *map(str, arguments)]
        environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(elsewhere)}
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_every_file_of_places_images_and_guides_comes_along():
    asked = ["git", "ls-files", "lmr", "workflows", "deploy", "docker", "docs"]
    tracked = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert set(tracked.stdout.split()) <= {*files(), *sources()}


def test_every_file_that_an_error_points_to_comes_along():
    text = "".join(path.read_text() for path in (ROOT / "lmr").rglob("*.py"))
    named = set(re.findall(r"\b(?:docs|deploy|docker|workflows)/[\w/-]+\.(?:md|toml|py|env|yaml|sh)\b", text))
    assert named
    assert named <= {*files(), *sources()}


def test_machines_are_sent_what_pip_builds(wheel, tmp_path):
    name, data = own_wheel()
    (tmp_path / name).write_bytes(data)
    assert name == wheel.name
    assert contents(tmp_path / name) == contents(wheel)


def test_a_wheel_installs_no_name_but_lmr(wheel):
    assert {name.split("/")[0] for name in contents(wheel)} == {"lmr"}


def test_keys_and_lists_of_servers_stay_at_home(tmp_path, wheel):
    """Neither pip nor `lmr cluster up` packs what somebody keeps beside our files."""
    checkout = tmp_path / "checkout"
    copy_files(checkout)
    for name in (
        "lab/my_lab.toml",
        "lab/id_ed25519",
        "lab/certs/ca.key",
        "aws/push.pem",
        "aws/credentials",
        ".env",
    ):
        path = checkout / "deploy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("secret")
    (checkout / "docker" / "client.key").write_text("secret")
    ours = set(contents(wheel))
    assert set(contents(build(checkout, tmp_path / "dist"))) == ours
    packed_there = 'import sys; sys.path.insert(0, "."); from lmr.shipped import packed; print(*packed())'
    done = subprocess.run(
        [sys.executable, "-c", packed_there], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == ours


def test_a_source_distribution_is_what_the_wheel_is_built_from(tmp_path, wheel):
    names, unpacked = names_in_sdist(ROOT, tmp_path / "sdist")
    assert {*files(), *sources()} <= names
    assert names <= {*files(), *sources(), ".gitignore", "PKG-INFO"}
    assert contents(build(unpacked, tmp_path / "dist")) == contents(wheel)


def test_a_workflow_is_known_by_name_even_beside_another_package_of_that_name(installed, tmp_path):
    """Two packages of the index install a `workflows`; theirs is not ours."""
    theirs = tmp_path / "workflows"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("raise RuntimeError('not ours')")
    (theirs / "retrieval.py").write_text("raise RuntimeError('not ours')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lmr.api.workflows import load_workflow\n"
        "print(load_workflow('retrieval').__file__)"
    )
    assert installed("-c", code).strip().endswith("lmr/_shipped/workflows/retrieval.py")


def test_a_workflow_that_does_not_come_along_is_told_with_those_that_do():
    with pytest.raises(LmrError, match="one of: descriptors, recognition, retrieval") as caught:
        load_workflow("nothing")
    for name in caught.value.fix.rpartition(": ")[2].split(", "):
        assert load_workflow(name).build


def test_an_installed_lmr_has_all_of_it_and_is_the_same_code(installed):
    code = (
        "from lmr.cluster.preflight import facts\n"
        "from lmr.shipped import files, sources\n"
        'print(facts()["lmr\'s source"], *files(), *sources())'
    )
    source, *names = installed("-c", code).split()
    # A checkout and a wheel of it may work in one cluster.
    assert source == facts()["lmr's source"]
    assert sorted(names) == sorted([*files(), *sources()])
    assert installed("-m", "lmr", "cluster", "prices") == shipped("deploy/aws/prices.toml").read_text()


def test_what_an_installed_lmr_unpacks_can_be_built_from(installed, wheel, tmp_path):
    """So images can be built without a checkout."""
    told = installed("-m", "lmr", "files", tmp_path / "lmr")
    assert str(tmp_path / "lmr") in told
    assert (tmp_path / "lmr" / "docker" / "entrypoint.sh").is_file()
    assert contents(build(tmp_path / "lmr", tmp_path / "dist")) == contents(wheel)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "hosts.toml").write_text("mine")
    with pytest.raises(SettingsError, match="there is something already"):
        copy_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["hosts.toml"]
