"""Who may talk to a cluster: real certificates, a real scheduler and a real worker on loopback."""

import shutil
import socket
import ssl
import subprocess
import sys

import distributed
import pytest

from lmr.cluster.certificates import make_certificates
from lmr.cluster.client import connect, workers_of
from lmr.cluster.commands import worker_command
from lmr.cluster.tls import security
from lmr.cluster.tunnel import dashboard_place
from lmr.errors import ClusterError
from tests.support import servers

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def certs(folder):
    make_certificates(folder / "certs")
    make_certificates(folder / "foreign")
    # What a laptop gets is enough for a laptop.
    (folder / "laptop").mkdir()
    for name in ("ca.pem", "client.pem", "client.key"):
        shutil.copy(folder / "certs" / name, folder / "laptop")
    # A stranger who knows the public ca.pem, with a certificate of his own.
    shutil.copytree(folder / "foreign", folder / "stranger")
    shutil.copy(folder / "certs" / "ca.pem", folder / "stranger")
    return folder


@pytest.fixture(scope="module")
def scheduler(folder, certs):
    with servers.scheduler(folder, folder / "certs") as address:
        yield address


@pytest.fixture(scope="module")
def worker(folder, scheduler):
    log = folder / "worker.log"
    with servers.started(worker_command(scheduler, tls=str(folder / "certs"), workers=1), log):
        servers.said(log, "Registered to")
        yield servers.said(log, r"Start worker at:\s+(\S+)")[1]


def test_who_has_a_certificate_may_run_code(scheduler, worker, certs):
    with connect(scheduler, str(certs / "laptop")) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        environment = client.run(_environment)[worker]
    assert environment["threads"] == "1"
    assert environment["nthreads"] == 1
    assert environment["resources"] == {"CPU": 1}


def _environment(dask_worker):
    import os

    return {
        "threads": os.environ["OMP_NUM_THREADS"],
        "nthreads": dask_worker.state.nthreads,
        "resources": dask_worker.state.total_resources,
    }


def test_a_client_without_a_certificate_gets_one_clear_error(scheduler):
    with (
        pytest.raises(ClusterError, match=r"asks for a certificate\ngot: neither --tls nor LMR_TLS"),
        connect(scheduler, None),
    ):
        pass


def test_an_unencrypted_call_gets_one_clear_error(scheduler, certs):
    plain = scheduler.replace("tls://", "tcp://")
    with pytest.raises(ClusterError, match="speaks TLS only\ngot: a tcp:// address\nfix: use tls://"):
        connect(plain, None).__enter__()
    with pytest.raises(ClusterError, match="no encrypted address, but certificates were given"):
        connect(plain, str(certs / "laptop")).__enter__()


def test_a_scheduler_of_another_authority_is_not_believed(scheduler, certs):
    with pytest.raises(ClusterError, match="shows a certificate of another authority"):
        connect(scheduler, str(certs / "foreign")).__enter__()


def test_a_certificate_that_its_own_authority_did_not_sign_is_told_before_any_call(certs):
    with pytest.raises(ClusterError, match=r"client\.pem was not signed by"):
        security("tls://127.0.0.1:9", str(certs / "stranger"))


def test_a_scheduler_without_tls_is_named(tmp_path, certs):
    with servers.scheduler(tmp_path) as address:
        encrypted = address.replace("tcp://", "tls://")
        with pytest.raises(ClusterError, match="does not speak TLS\ngot: a tls:// address"):
            connect(encrypted, str(certs / "laptop")).__enter__()


@pytest.mark.parametrize("server", ["scheduler", "worker"])
def test_others_are_refused(server, scheduler, worker, certs):
    address = {"scheduler": scheduler, "worker": worker}[server]
    host, port = address.removeprefix("tls://").split(":")
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    foreign.check_hostname, foreign.verify_mode = False, ssl.CERT_NONE
    foreign.load_cert_chain(certs / "foreign" / "worker.pem", certs / "foreign" / "worker.key")
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    for context, told in ((foreign, "UNKNOWN_CA"), (nobody, "CERTIFICATE_REQUIRED")):
        with (
            pytest.raises(ssl.SSLError, match=told),
            socket.create_connection((host, int(port)), 10) as raw,
            context.wrap_socket(raw) as stream,
        ):
            assert stream.recv(1) == b""
    # A client that speaks no TLS is hung up on before it can say anything.
    with socket.create_connection((host, int(port)), 10) as raw:
        raw.sendall(b"\0" * 64)
        try:
            answer = raw.recv(1000)
        except ConnectionResetError:
            answer = b""
        assert answer[:1] in (b"", b"\x15")  # nothing, or a TLS alert


def test_a_worker_of_another_authority_cannot_join(scheduler, worker, certs, tmp_path):
    log = tmp_path / "foreign.log"
    command = worker_command(scheduler, tls=str(certs / "foreign"), workers=1)
    with servers.started(command, log):
        servers.said(log, "CERTIFICATE_VERIFY_FAILED")
    with connect(scheduler, str(certs / "laptop")) as client:
        assert list(workers_of(client)) == [worker]


def test_every_port_of_a_cluster_is_encrypted_or_on_loopback(scheduler, worker, certs):
    assert worker.startswith("tls://127.0.0.1:")
    place = dashboard_place(scheduler, str(certs / "laptop"))
    assert place.host == "127.0.0.1"
    with connect(scheduler, str(certs / "laptop")) as client:
        about = workers_of(client)[worker]
        assert about["nanny"].startswith("tls://")
        assert client.run(_http_address)[worker] == "127.0.0.1"


def _http_address(dask_worker):
    return dask_worker.http_server.address


def test_the_command_line_prints_the_error_and_no_traceback(scheduler):
    done = subprocess.run(
        [sys.executable, "-m", "lmr", "dashboard", "--scheduler", scheduler],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error the scheduler at tls://")
    assert "Traceback" not in done.stderr


def test_dask_configuration_of_certificates_is_used_too(scheduler, certs):
    import dask

    names = {"ca-file": "ca.pem", "client.cert": "client.pem", "client.key": "client.key"}
    files = {f"distributed.comm.tls.{k}": str(certs / "laptop" / v) for k, v in names.items()}
    with dask.config.set(files), connect(scheduler, None) as client:
        assert isinstance(client, distributed.Client)
