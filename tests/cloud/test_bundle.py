"""What machines are sent: this very code as a wheel that installs and works."""

import hashlib
import io
import subprocess
import sys
import zipfile

from lmr.cloud.bundle import FILES, Bundle, own_bundle, own_wheel


def test_the_wheel_is_this_code():
    name, data = own_wheel()
    again = own_wheel()
    assert (name, data) == again
    assert name.endswith("-py3-none-any.whl")


def test_the_wheel_works_where_no_checkout_is_and_packs_itself_again(tmp_path):
    _, data = own_wheel()
    folder = tmp_path / "site"
    zipfile.ZipFile(io.BytesIO(data)).extractall(folder)
    code = (
        "from lmr.cloud.bundle import own_wheel\n"
        "from lmr.shipped import shipped\n"
        "import hashlib, lmr\n"
        "print(lmr.__file__)\n"
        "for name in ('deploy/aws/stack.yaml', 'deploy/aws/node.sh', 'constraints.txt'):\n"
        "    print(shipped(name))\n"
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
    assert all(line.startswith(str(folder)) for line in lines[1:4])
    assert lines[4] == hashlib.sha256(data).hexdigest()
    assert (folder / "lmr" / "_shipped" / "workflows" / "retrieval.py").is_file()


def test_the_digest_names_every_byte_and_every_name():
    files = {"a": b"1", "b": b"2"}
    digest = Bundle(files).digest
    assert Bundle(dict(reversed(files.items()))).digest == digest
    others = ({"a": b"1", "b": b"3"}, {"a": b"1", "c": b"2"}, {"a": b"1"}, {**files, "c": b""})
    assert len({digest, *(Bundle(other).digest for other in others)}) == 5
    assert Bundle(files).folder == f"cluster/{digest}/"


def test_one_wheel_and_all_that_machines_need():
    bundle = own_bundle()
    assert bundle.digest == own_bundle().digest
    assert sorted(bundle.files) == sorted([*FILES, own_wheel()[0]])


def test_sha256sum_reads_the_manifest(tmp_path):
    bundle = own_bundle()
    for name, data in {**bundle.files, "SHA256SUMS": bundle.manifest}.items():
        (tmp_path / name).write_bytes(data)
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path, check=True)
    (tmp_path / "node.sh").write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
