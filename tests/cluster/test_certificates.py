import os
import shlex
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from lmr.cluster import certificates
from lmr.cluster.certificates import ROLES, check_certificate, make_certificates
from lmr.cluster.commands import scheduler_command, worker_command
from lmr.cluster.tls import security
from lmr.errors import ClusterError


@pytest.fixture
def folder(tmp_path):
    make_certificates(tmp_path / "certs", hosts=["sched.example", "10.0.0.1"])
    return tmp_path / "certs"


def test_every_role_gets_a_key_that_only_the_owner_reads(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{role}.{kind}" for role in ("ca", *ROLES) for kind in ("pem", "key")
    )
    for path in folder.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for role in ROLES:
        check_certificate(folder, role)


def test_names_and_days_are_in_the_certificate(tmp_path):
    make_certificates(tmp_path, hosts=["sched.example", "10.0.0.1", "2001:db8::7", "[::1]"], days=2)
    certificate = x509.load_pem_x509_certificate((tmp_path / "scheduler.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["sched.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "2001:db8::7", "::1"]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert 47 < left.total_seconds() / 3600 <= 48
    with pytest.raises(ClusterError, match="the name of a host is not valid\ngot: schéd"):
        make_certificates(tmp_path / "other", hosts=["schéd"])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_may_read_is_refused_until_the_fix_is_done(folder, mode):
    for role in ROLES:
        (folder / f"{role}.key").chmod(mode)
        with pytest.raises(
            ClusterError, match=f"others may use the private key .*\ngot: mode {mode:04o}"
        ) as told:
            check_certificate(folder, role)
        subprocess.run(told.value.fix, shell=True, check=True)
        check_certificate(folder, role)


@pytest.mark.parametrize("role", ROLES)
def test_so_are_schedulers_workers_and_clients(folder, role):
    address = "tls://127.0.0.1:8786"
    start = {
        "scheduler": lambda: scheduler_command(tls=str(folder)),
        "worker": lambda: worker_command(address, tls=str(folder)),
        "client": lambda: security(address, str(folder)),
    }[role]
    start()
    (folder / f"{role}.key").chmod(0o644)
    with pytest.raises(ClusterError, match="others may use the private key"):
        start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user for a moment")
def test_a_service_may_read_a_key_of_root_by_its_group(folder):
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(0o755)
    for name in ("ca.pem", "worker.pem"):
        (folder / name).chmod(0o644)
    key = folder / "worker.key"
    os.chown(key, 0, 65534)

    def checked(mode):
        key.chmod(mode)
        # As another user, who cannot read the folders of this user's Python: that is loaded before.
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                check_certificate(folder, "worker")
            except ClusterError as error:
                os._exit(1 if "as its owner: chmod 600" in error.fix else 2)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert checked(0o640) == 0
    assert checked(0o644) == checked(0o660) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user for a moment")
def test_a_key_that_a_service_may_not_read_is_told_with_a_fix_that_works(folder):
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(0o755)
    for name in ("ca.pem", "worker.pem"):
        (folder / name).chmod(0o644)
    told = folder.parent / "told"
    told.touch()
    told.chmod(0o666)

    def checked():
        # As another user, who cannot read the folders of this user's Python: that is loaded before.
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                check_certificate(folder, "worker")
            except ClusterError as error:
                told.write_text(str(error))
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert checked() == 1
    what, got, fix = told.read_text().splitlines()
    assert what == f"the certificate for a worker in {folder} cannot be read"
    assert got.startswith("got: [Errno 13] Permission denied")
    subprocess.run(shlex.split(fix.removeprefix("fix: as its owner: ")), check=True)
    assert checked() == 0


def test_a_folder_open_to_others_is_closed_where_it_is_empty_and_refused_where_it_is_not(tmp_path):
    empty, used = tmp_path / "empty", tmp_path / "used"
    for folder in (empty, used):
        folder.mkdir()
        folder.chmod(0o777)
    make_certificates(empty)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700

    (used / "notes.txt").write_text("mine")
    for mode in (0o777, 0o1777, 0o775):
        used.chmod(mode)
        with pytest.raises(ClusterError, match=f"others may write to .*\ngot: mode {mode:04o}") as told:
            make_certificates(used)
        assert [path.name for path in used.iterdir()] == ["notes.txt"]
        assert stat.S_IMODE(used.stat().st_mode) == mode
    named = shlex.split(told.value.fix)[-1]
    make_certificates(Path(named))
    assert stat.S_IMODE(Path(named).stat().st_mode) == 0o700


def test_nothing_is_overwritten_unless_asked(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ClusterError, match=r"holds certificates already\ngot: ca\.pem"):
        make_certificates(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    make_certificates(folder, force=True)
    assert all(path.read_bytes() != before[path.name] for path in folder.iterdir())


def test_what_is_wrong_with_a_certificate_is_named(folder, tmp_path):
    with pytest.raises(ClusterError, match=r"no certificate for a client in .*\ngot: ca\.pem, client\.pem"):
        check_certificate(tmp_path / "none", "client")

    make_certificates(tmp_path / "foreign")
    for name in ("client.pem", "client.key"):
        (folder / name).write_bytes((tmp_path / "foreign" / name).read_bytes())
    with pytest.raises(ClusterError, match=r"client\.pem was not signed by .*ca\.pem"):
        check_certificate(folder, "client")

    (folder / "worker.key").write_bytes((folder / "scheduler.key").read_bytes())
    with pytest.raises(ClusterError, match=r"worker\.key is not the key of .*worker\.pem"):
        check_certificate(folder, "worker")

    (folder / "scheduler.pem").write_text("nothing")
    with pytest.raises(ClusterError, match=r"the certificate for a scheduler in .* cannot be read"):
        check_certificate(folder, "scheduler")


def test_an_expired_certificate_is_named(tmp_path, monkeypatch):
    class Yesterday(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", Yesterday)
        make_certificates(tmp_path)
    with pytest.raises(ClusterError, match=r"client\.pem has expired\ngot: valid until 2020-12-31"):
        check_certificate(tmp_path, "client")


def handshake(folder, server, client):
    """Let two roles shake hands over TLS, each asking for the other's certificate."""
    contexts = []
    for role, purpose in ((server, ssl.Purpose.CLIENT_AUTH), (client, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cafile=folder / "ca.pem")
        context.load_cert_chain(folder / f"{role}.pem", folder / f"{role}.key")
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        contexts.append(context)
    ours, theirs = socket.socketpair()
    failures = []

    def serve():
        try:
            with contexts[0].wrap_socket(theirs, server_side=True) as stream:
                stream.sendall(b"x")
        except (ssl.SSLError, OSError) as error:
            failures.append(error)
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with contexts[1].wrap_socket(ours) as stream:
            assert stream.recv(1) == b"x"
    finally:
        ours.close()
        thread.join()
    assert not failures


def test_a_client_cannot_pass_for_the_scheduler_or_a_worker(folder):
    for server in ("scheduler", "worker"):
        for client in ROLES:
            handshake(folder, server, client)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(folder, "client", "worker")
