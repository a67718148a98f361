"""The CPU image, built and started: a worker in a container on one host, scheduler and laptop on others.

Not in CI: it takes minutes and needs the registries of Debian and PyPI. As root with buildah, debootstrap:
LMR_IMAGES=/var/tmp/lmr-images pytest tests/docker/test_image.py
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmr.cluster.certificates import make_certificates
from lmr.versions import installed
from tests.support.network import network, why_not

ROOT = Path(__file__).parents[2]
LMR = [sys.executable, "-m", "lmr"]
MISSING = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.hosts,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("LMR_IMAGES" not in os.environ, reason="builds an image: set LMR_IMAGES to a folder"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} (Debian: apt-get install)"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or ""),
]


class Container:
    """A container of the image; `buildah` begins every command on it."""

    def __init__(self, store):
        self.buildah = ["buildah", "--root", f"{store}/storage", "--runroot", f"{store}/run"]
        self.buildah += ["--storage-driver", "vfs"]
        made = [*self.buildah, "from", "--pull-never", "localhost/lmr-cpu"]
        self.name = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()

    def command(self, *arguments, shared=()):
        mounts = [part for path in shared for part in ("-v", f"{path}:{path}")]
        return [*self.buildah, "run", "--isolation", "chroot", *mounts, self.name, "--", *arguments]

    def says(self, *arguments):
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()


@pytest.fixture(scope="module")
def container():
    store = Path(os.environ["LMR_IMAGES"])
    # What this machine's pip needs to reach its registry; nothing of it stays in the image.
    config = [f"{path}:{path}:ro" for path in ("/etc/pip.conf", "/etc/ssl/certs") if Path(path).exists()]
    options = [part for mount in config for part in ("-v", mount)]
    subprocess.run(
        [str(ROOT / "docker" / "without_engine.sh"), "cpu", *options], check=True, stdin=subprocess.DEVNULL
    )
    made = Container(store)
    yield made
    subprocess.run([*made.buildah, "rm", made.name], check=True, capture_output=True)


def test_the_image_is_what_its_dockerfile_promises(container):
    code, versions = container.says("entrypoint.sh", "version")
    assert code == 0
    first, last = versions.splitlines()
    there = dict(part.split("=") for part in first.split())
    assert last == there["lmr"] == installed()["lmr"]
    assert there["torch"] == there["dask-cuda"] == "none"
    assert {n: there[n] for n in ("dask", "numpy", "numba")} == {
        n: installed()[n] for n in ("dask", "numpy", "numba")
    }
    assert container.says("id", "-un") == (0, "lmr")
    for absent in ("gcc", "cc", "pip", "nvcc"):
        assert container.says("sh", "-c", f"command -v {absent}")[0] != 0
    assert container.says("sh", "-c", "ls -d /opt/lmr/lib/python3*/site-packages/*nvidia*")[1] == ""
    assert container.says("sh", "-c", "ls /root /home/lmr /cache")[1].split() == ["/cache:", "/home/lmr:"]


def test_a_worker_in_a_container_serves_a_scheduler_on_another_host(container, tmp_path):
    certs, share = tmp_path / "certs", tmp_path / "share"
    make_certificates(certs, hosts=["10.77.0.1"])
    share.mkdir()
    subprocess.run(
        [*LMR, "render", f"{share}/photos", "--landmarks", "3", "--long-side-px", "256"], check=True
    )
    for path in (share, certs, certs / "worker.key"):  # the container's user is another
        path.chmod(0o777 if path.is_dir() else 0o644)
    photos = ["--gallery", f"{share}/photos/gallery", "--queries", f"{share}/photos/queries", "--prune", "1"]
    compiled = ("find", "/var/cache/lmr-numba", "-name", "*.nbc")

    with network("scheduler", "worker", "laptop") as hosts:
        address = f"tls://{hosts['scheduler'].address}:8786"
        hosts["scheduler"].start(
            [*LMR, "cluster", "scheduler", "--tls", str(certs)], tmp_path / "scheduler.log"
        )
        healthy = ["ip", "netns", "exec", hosts["worker"].namespace]
        healthy += container.command("python", "/usr/local/bin/health.py")
        assert subprocess.run(healthy, check=False).returncode == 1
        before = container.says(*compiled)[1]
        log = tmp_path / "worker.log"
        hosts["worker"].start(
            container.command(
                "entrypoint.sh", "cluster", "worker", address, "--tls", str(certs), "--workers", "1",
                shared=(certs, share),
            ),
            log,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while subprocess.run(healthy, check=False).returncode:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(1)
        (share / "run").mkdir(mode=0o777)
        (share / "run").chmod(0o777)
        hosts["laptop"].run(
            [
                *LMR,
                "run",
                "retrieval",
                *photos,
                "--out",
                f"{share}/run",
                "--scheduler",
                address,
                "--tls",
                str(certs),
            ],
            seconds=600,
        )
        assert container.says(*compiled)[1] == before, "the image's compiled code did not serve"
    subprocess.run(
        [*LMR, "run", "retrieval", *photos, "--out", f"{tmp_path}/alone", "--workers", "0"], check=True
    )
    assert (share / "run" / "submission.csv").read_bytes() == (
        tmp_path / "alone" / "submission.csv"
    ).read_bytes()
    assert "lmr=" in log.read_text().splitlines()[0]
