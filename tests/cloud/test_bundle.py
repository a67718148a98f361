"""What machines are sent: this very code as a wheel that installs and works."""

import subprocess
import sys
import zipfile

import pytest

from lmr.cloud.bundle import own_wheel


def test_the_wheel_is_this_code():
    name, data = own_wheel()
    again = own_wheel()
    assert (name, data) == again
    assert name.endswith("-py3-none-any.whl")


@pytest.mark.slow
def test_the_wheel_installs_and_carries_template_and_prices(tmp_path):
    """Installed by pip where no checkout is, `lmr` finds what it needs, and packs itself again."""
    name, data = own_wheel()
    (tmp_path / name).write_bytes(data)
    folder = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, tmp_path / name],
        check=True,
    )
    code = (
        "from lmr.cloud.bundle import own_wheel\n"
        "from lmr.cloud.resources import resource\n"
        "import hashlib, lmr\n"
        "print(lmr.__file__)\n"
        "for name in ('stack.yaml', 'prices.toml', 'node.sh', 'constraints.txt'):\n"
        "    print(resource(name), resource(name).is_file())\n"
        "print(hashlib.sha256(own_wheel()[1]).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(folder)), done.stderr
    assert all(line.startswith(str(folder)) and line.endswith(" True") for line in lines[1:5])
    assert "workflows/retrieval.py" in zipfile.ZipFile(tmp_path / name).namelist()
