"""Fixtures of all tests.

Isolation
    `cache_folder` (automatic): every test unpacks datasets into a folder of its own.
Clusters
    `where`: a test that takes it runs twice, in this process and on a real cluster of two worker processes.
Weights
    `pca_class`: pickles as scikit-learn's PCA did when checkpoints were made.
Storage and cloud
    `moto_aws`: a real HTTP server on loopback that speaks AWS's interfaces. `moto_s3`: an empty bucket on it.
    `home`: an empty home folder, for `lmr cluster` on AWS.
"""

import functools
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import botocore.loaders
import pytest

from lmr.cluster.client import Where


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LMR_CACHE", str(folder))
    return folder


@pytest.fixture(params=["in process", pytest.param("cluster", marks=pytest.mark.cluster)])
def where(request: pytest.FixtureRequest) -> Where:
    return Where(workers=2) if request.param == "cluster" else Where()


@pytest.fixture
def pca_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles as scikit-learn 0.20's PCA."""
    from lmr.features.networks._torchvision import torchvision  # a base install has no torch

    torchvision()  # which looks at what modules there are
    module = types.ModuleType("sklearn.decomposition.pca")
    made = type("PCA", (), {"__module__": "sklearn.decomposition.pca"})
    module.__dict__["PCA"] = made
    for name in ("sklearn", "sklearn.decomposition"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "sklearn.decomposition.pca", module)
    return made


@functools.cache
def _loader(search_path_string: str | None = None) -> botocore.loaders.Loader:
    return botocore.loaders.Loader()


@pytest.fixture
def aws_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions of AWS's interfaces, megabytes, read once per process and not by every session."""
    monkeypatch.setattr("botocore.session.create_loader", _loader)


@pytest.fixture
def moto_aws(monkeypatch: pytest.MonkeyPatch, aws_interfaces: None) -> Iterator[None]:
    """A real HTTP server that speaks AWS's interfaces, on loopback, and credentials for it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # moto's store is the process's, not the server's.
    with urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")):
        pass
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield
    server.stop()


@pytest.fixture
def moto_s3(moto_aws: None) -> Iterator[str]:
    """An empty bucket on a real HTTP server that speaks S3, on loopback."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().call_s3("create_bucket", Bucket="photos")
    yield "s3://photos/run"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of the test's own; output as wide as it wants."""
    from lmr.cli.cluster import aws_session

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(aws_session.out, "width", 200)
    before = logging.getLogRecordFactory()
    yield tmp_path / "home"
    logging.setLogRecordFactory(before)
