"""Storage that is busy, fails or goes away: what is waited for, what is not, and for how long."""

import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lmr.errors import ShardError, StorageError
from lmr.runtime.graph import dask_graph, make_plan
from lmr.storage import objects, retries
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.outside import read_outside, read_starts, stamps_of
from lmr.storage.retries import retry
from tests.support.faulty import FaultyProxy, burst
from tests.support.toys import workflow

# moto and botocore leave sockets and warn of their own habits; what is tested here is ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FAULTS = ["slow down", "internal", "reset", "late reset"]


@pytest.fixture
def s3(moto_s3, monkeypatch):
    """An S3 server behind a proxy that fails on command; yields the proxy and the URL of a folder."""
    import s3fs

    address = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    with FaultyProxy((address[0], int(address[1]))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(retries, "_PAUSE_SECONDS", 0.01)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy, moto_s3
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_operation_outlasts_a_burst(s3, fault):
    proxy, root = s3
    url = objects.join(root, "a", "b.bin")
    for operation, want in (
        (lambda: objects.put(url, b"12345"), None),
        (lambda: objects.exists(url), True),
        (lambda: objects.read(url), b"12345"),
        (lambda: read_outside([url, url], most_bytes=9), [b"12345"] * 2),
        (lambda: read_starts([url], 3), [b"123"]),
        (lambda: [stamp.split()[0] for stamp in stamps_of([url])], ["5"]),
        (lambda: objects.folder_sizes(objects.join(root, "a")), {"b.bin": 5}),
        (lambda: list(objects.find(root)), ["a/b.bin"]),
        (lambda: objects.delete(url), None),
        (lambda: objects.exists(url), False),
    ):
        proxy.fault = burst(*[fault] * 4)
        before = len(proxy.requests)
        assert operation() == want
        assert len(proxy.requests) >= before + 5


@pytest.mark.parametrize("fault", [*FAULTS, "half"])
def test_ranged_reads_of_a_shard_outlast_a_burst(s3, fault):
    proxy, root = s3
    dataset = Dataset(objects.join(root, "d"), "toy", "0123456789ab", 1)
    dataset.write(0, table({"n": np.arange(100_000)}))

    faults = burst(*[fault] * 3)
    # The opening is asked with HEAD; here it is the reading that fails.
    proxy.fault = lambda method, path: faults(method, path) if method == "GET" else None
    assert column(dataset.read(0), "n").sum() == 100_000 * 99_999 // 2
    assert sum(method == "GET" for method, _ in proxy.requests) >= 4


def test_what_does_not_pass_is_told_at_once(s3):
    proxy, root = s3
    before = len(proxy.requests)
    with pytest.raises(StorageError, match="cannot read"):
        objects.read(objects.join(root, "nothing"))
    assert len(proxy.requests) - before <= 2
    with pytest.raises(StorageError, match=r"cannot write s3://no-such-bucket/x"):
        objects.put("s3://no-such-bucket/x", b"")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_lasts_is_told_in_bounded_time(s3, fault, monkeypatch):
    proxy, root = s3
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "1")
    url = objects.join(root, "x")
    objects.put(url, b"1")
    proxy.fault = lambda method, path: fault
    for verb, operation in (
        ("write", lambda: objects.put(url, b"2")),
        ("read", lambda: objects.read(url)),
        ("list", lambda: objects.folder_sizes(root)),
        ("look for", lambda: objects.exists(url)),
    ):
        start = time.monotonic()
        with pytest.raises(
            StorageError, match=rf"cannot {verb} s3://.*\ngot: .*\(tried \d+ times in .*\nfix: "
        ):
            operation()
        assert time.monotonic() - start < 5
    start = time.monotonic()
    (found,) = read_outside([url], most_bytes=9)
    assert isinstance(found, StorageError)
    assert 0.4 < time.monotonic() - start < 5


def test_a_shard_behind_a_failing_server_is_not_called_damaged(s3, monkeypatch):
    proxy, root = s3
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0.5")
    dataset = Dataset(objects.join(root, "d"), "toy", "0123456789ab", 1)
    dataset.write(0, table({"n": np.arange(100_000)}))
    proxy.fault = lambda method, path: "slow down" if method == "GET" else None
    with pytest.raises(StorageError, match="cannot read s3://") as caught:
        dataset.read(0)
    assert not isinstance(caught.value, ShardError)


def test_a_photo_that_could_not_be_fetched_is_no_damaged_photo(s3, monkeypatch):
    """A burst must not end as rows that call good photos unreadable."""
    proxy, root = s3
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0.5")
    urls = [objects.join(root, f"{i}.jpg") for i in range(4)]
    for url in urls:
        objects.put(url, b"photo")
    proxy.fault = lambda method, path: "internal" if path.endswith("2.jpg") else None
    found = read_outside(urls, most_bytes=9)
    assert [isinstance(f, StorageError) for f in found] == [False, False, True, False]
    proxy.fault = lambda method, path: None
    objects.delete(urls[1])
    found = read_outside(urls, most_bytes=9)
    assert [isinstance(f, StorageError) for f in found] == [False, True, False, False]
    assert found[0] == b"photo"


def test_ten_thousand_shards_are_one_paged_listing(s3):
    from moto.s3.models import s3_backends

    proxy, root = s3
    first, _, _ = steps = workflow("x", shards=10_000)
    bucket = s3_backends["123456789012"]["aws"]
    folder = first.dataset(root).url.removeprefix("s3://photos/")
    for shard in range(9_999):
        bucket.put_object("photos", f"{folder}/part-{shard:05d}.parquet", b"x")
    proxy.requests.clear()
    plan = make_plan([first], root)
    assert (plan.steps[0].present, plan.steps[0].missing) == (9_999, (9_999,))
    assert [method for method, _ in proxy.requests] == ["GET"] * 10  # of a thousand names each
    # All steps of a workflow: a listing each, whatever their number of shards.
    proxy.requests.clear()
    make_plan([steps[-1]], root)
    assert len(proxy.requests) <= 10 + 2 * 4


PUT = """
import sys
from lmr import storage
print("go", flush=True)
objects.put(sys.argv[1], b"x" * 300_000_000)
"""


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_process_killed_while_writing_leaves_no_object(where, tmp_path, request):
    """SIGKILL at several moments of a large write: the object is whole or absent."""
    root = str(tmp_path / "run") if where == "folder" else request.getfixturevalue("s3")[1]
    for delay in (0.0, 0.05, 0.2, 0.4):
        url = objects.join(root, f"big-{delay}")
        process = subprocess.Popen([sys.executable, "-c", PUT, url], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        size = objects.folder_sizes(root).get(f"big-{delay}")
        assert size in (None, 300_000_000)
        assert objects.exists(url) == (size is not None)


def test_an_exception_while_writing_leaves_no_object(s3):
    _, root = s3
    url = objects.join(root, "x")

    class Interrupted(BaseException):
        pass

    class Data:
        def __bytes__(self):
            raise Interrupted

    with pytest.raises(Interrupted):
        objects.put(url, Data())
    assert not objects.exists(url)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EAGAIN])
def test_a_network_folder_that_loses_its_server_is_waited_for(tmp_path, monkeypatch, number):
    monkeypatch.setattr(retries, "_PAUSE_SECONDS", 0.01)
    dataset = Dataset(str(tmp_path), "toy", "0123456789ab", 1)
    failures = {"fsync": 2, "replace": 2, "read": 2}

    def failing(name, real):
        def call(*args, **kwargs):
            if failures[name]:
                failures[name] -= 1
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(objects.os, "fsync", failing("fsync", os.fsync))
    monkeypatch.setattr(objects.os, "replace", failing("replace", os.replace))
    dataset.write(0, table({"n": np.arange(10)}))
    assert [p.name for p in tmp_path.iterdir()] == ["part-00000.parquet"]

    from fsspec.implementations.local import LocalFileOpener

    monkeypatch.setattr(LocalFileOpener, "read", failing("read", LocalFileOpener.read), raising=False)
    assert column(dataset.read(0), "n").sum() == 45
    assert failures == {"fsync": 0, "replace": 0, "read": 0}


def test_a_local_disk_that_keeps_failing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0.3")

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(objects.os, "fsync", broken)
    with pytest.raises(StorageError, match=r"cannot write .*\ngot: OSError: .*Input/output error \(tried"):
        objects.put(str(tmp_path / "x"), b"1")
    assert not list(tmp_path.iterdir())


OPERATIONS = {
    "put": lambda url: objects.put(url, b"12345"),
    "exists": objects.exists,
    "read": objects.read,
    "read_outside": lambda url: _only(read_outside([url, url], most_bytes=9)),
    "folder_sizes": lambda url: objects.folder_sizes(url.rpartition("/")[0]),
    "find": lambda url: objects.find(url.rpartition("/")[0]),
    "open_read": lambda url: _read_opened(url),
    "delete": objects.delete,
}


LOOKS = {
    "read_starts": lambda url: _only(read_starts([url], 3)),
    "stamps_of": lambda url: _only(stamps_of([url])),
}


def _only(found):
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _read_opened(url):
    with objects.open_read(url) as file:
        return file.read()


@pytest.fixture
def credentials(tmp_path, monkeypatch):
    """A file of credentials, all that S3 clients have; returns a function that writes a key to it."""
    file = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(key):
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=secret\n")

    write("AKIAOLD")
    return write


@pytest.mark.parametrize("name", [*OPERATIONS, *LOOKS])
def test_renewed_credentials_reach_a_process_that_runs(s3, credentials, name):
    proxy, root = s3
    url = objects.join(root, "a", "b.bin")
    objects.put(url, b"12345")
    proxy.expired_keys = {"AKIAOLD"}
    credentials("AKIANEW")
    (OPERATIONS | LOOKS)[name](url)
    assert objects.exists(url) == (name != "delete")


@pytest.mark.parametrize("name", OPERATIONS)
def test_expired_credentials_name_the_machine_that_has_them(s3, credentials, name):
    proxy, root = s3
    url = objects.join(root, "a", "b.bin")
    objects.put(url, b"12345")
    proxy.expired_keys = {"AKIAOLD"}
    with pytest.raises(
        StorageError, match=f"renew the AWS credentials of {socket.gethostname()} "
    ) as refused:
        OPERATIONS[name](url)
    assert len(proxy.requests) < 20
    # The remedy that is named is one.
    assert "running workers read them anew" in refused.value.fix
    credentials("AKIANEW")
    OPERATIONS[name](url)


def _answer_of_s3(code, status=400, message=""):
    """The error that s3fs raises for an answer of S3."""
    import botocore.exceptions
    from s3fs.errors import translate_boto_error

    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(response, "GetObject"))


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [
        ("RequestTimeTooSkewed", 403, "set the clock of"),
        ("ExpiredToken", 400, "renew the AWS credentials of"),
        ("InvalidAccessKeyId", 403, "renew the AWS credentials of"),
        ("AccessDenied", 403, "requester_pays"),
        ("KMS.DisabledException", 400, "KMS key"),
        ("InvalidTokenId", 403, "renew the AWS credentials of"),
        ("403", 403, "or renew them"),
        ("400", 400, "AWS_DEFAULT_REGION"),
        ("PermanentRedirect", 301, "AWS_DEFAULT_REGION"),
        ("AuthorizationHeaderMalformed", 400, "AWS_DEFAULT_REGION"),
        ("NoSuchBucket", 404, "create the bucket"),
    ],
)
def test_every_cause_of_s3_has_a_remedy_of_its_own(code, status, word):
    assert word in objects.s3_hint(_answer_of_s3(code, status))


def test_what_forbids_is_told_by_operation_and_message():
    import botocore.exceptions
    from s3fs.errors import translate_boto_error

    def hint(message, operation):
        response = {"Error": {"Code": "AccessDenied", "Message": message}, "ResponseMetadata": {}}
        return objects.s3_hint(translate_boto_error(botocore.exceptions.ClientError(response, operation)))

    denied = "User: arn:aws:iam::1:user/kms-bot is not authorized to perform: {} on resource"
    assert "use the bucket's KMS key" in hint(denied.format("kms:GenerateDataKey"), "PutObject")
    # A name is no cause.
    assert "requester_pays" in hint(denied.format("s3:GetObject"), "GetObject")
    assert "s3_additional_kwargs" in hint(denied.format("s3:PutObject"), "PutObject")
    assert "s3_additional_kwargs" not in hint(denied.format("s3:GetObject"), "GetObject")


@pytest.mark.parametrize(
    ("kind", "more", "word"),
    [
        ("UnauthorizedSSOTokenError", {}, "aws sso login"),
        ("SSOTokenLoadError", {"error_msg": "no such file"}, "aws sso login"),
        ("TokenRetrievalError", {"provider": "sso", "error_msg": "expired"}, "aws sso login"),
        ("CredentialRetrievalError", {"provider": "custom-process", "error_msg": "x"}, "renew the AWS cred"),
        ("NoCredentialsError", {}, "AWS credentials (a role"),
        ("ProfileNotFound", {"profile": "lab"}, "AWS_PROFILE"),
    ],
)
def test_credentials_that_are_not_found_or_not_renewed_are_read_anew_and_told(kind, more, word):
    """Sessions, roles and programs that give credentials fail in the client, before S3 is asked."""
    import botocore.exceptions

    error, renewed = getattr(botocore.exceptions, kind)(**more), []

    def call():
        if not renewed:
            raise error
        return "there"

    if kind == "ProfileNotFound":
        with pytest.raises(botocore.exceptions.ProfileNotFound):
            retry(call, "s3://bucket", lambda: renewed.append(True))
    else:
        assert retry(call, "s3://bucket", lambda: renewed.append(True)) == "there"
    assert word in objects.s3_hint(error)


def test_credentials_that_come_later_reach_a_process_that_had_none(s3, credentials, tmp_path):
    _, root = s3
    url = objects.join(root, "a", "late.bin")
    (tmp_path / "credentials").unlink()
    with pytest.raises(StorageError, match="AWS credentials"):
        objects.put(url, b"1")
    credentials("AKIANEW")
    objects.put(url, b"1")
    assert objects.read(url) == b"1"


def test_a_head_request_that_is_forbidden_reads_credentials_anew_but_not_for_every_object(monkeypatch):
    """A key that was replaced is answered so, without a body; and so are objects of others."""
    monkeypatch.setattr(retries, "_renewed_for_403", -1e9)
    renewed = []

    def call():
        raise _answer_of_s3("403", 403)

    for _ in range(3):
        with pytest.raises(PermissionError):
            retry(call, "s3://bucket", lambda: renewed.append(True))
    assert renewed == [True]


def test_a_machine_without_credentials_is_named(s3, monkeypatch, tmp_path):
    _, root = s3
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=f"give {socket.gethostname()} AWS credentials(.|\n)*anon"):
        objects.put(objects.join(root, "a"), b"1")


SECRET = "wJalrXUtnFEMI-secret-of-this-test"


def test_credentials_are_in_no_graph_and_no_fingerprint(s3, monkeypatch):
    import cloudpickle

    _, root = s3
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-of-this-test")
    steps = workflow("x", shards=3)
    before = [step.fingerprint for step in steps]
    built = dask_graph(make_plan([steps[-1]], root), "r")
    sent = cloudpickle.dumps(dict(built.graph)) + pickle.dumps([step.fingerprint for step in steps])
    assert b"s3://photos/run" in sent
    assert SECRET.encode() not in sent
    assert b"AKIA-of-this-test" not in sent
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert [step.fingerprint for step in workflow("x", shards=3)] == before


@pytest.mark.cluster
def test_credentials_are_in_no_file_of_a_run_and_no_log(s3, monkeypatch, tmp_path):
    import s3fs

    _, root = s3
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3fs.S3FileSystem.clear_instance_cache()
    script = f"""
from lmr.cluster.client import Where
from lmr.scheduler.run import RunFailed, run
from tests.support.toys import Quiet, workflow
if __name__ == "__main__":
    steps = workflow({str(tmp_path)!r}, faults={{"scaled": {{1: "bug"}}}})
    try:
        run([steps[-1]], {root!r}, Where(workers=1), Quiet())
    except RunFailed as failure:
        print(failure)
"""
    (tmp_path / "script.py").write_text(script)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "debug",
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=environment,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert b"ZeroDivisionError" in done.stdout
    fs = s3fs.S3FileSystem()
    stored = {path: fs.cat_file(path) for path in fs.find("photos")}
    assert any("failures" in path for path in stored)
    for content in (done.stdout, done.stderr, *stored.values()):
        assert SECRET.encode() not in content


def test_patience_is_what_the_environment_says(monkeypatch):
    assert retries.retry_seconds() == 60
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "5.5")
    assert retries.retry_seconds() == 5.5
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "soon")
    assert retries.retry_seconds() == 60


def test_pauses_grow_and_a_storage_that_never_answered_gets_seconds(monkeypatch):
    now, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(retries.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retries.time, "sleep", sleep)
    monkeypatch.setattr(retries, "_answered", set())

    def refuse():
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        retries.retry(refuse, "s3://a")
    assert now[0] <= 5
    retries.retry(lambda: 1, "s3://a")
    now[0] = 0.0
    pauses.clear()
    with pytest.raises(ConnectionRefusedError) as caught:
        retries.retry(refuse, "s3://a")
    assert 45 < now[0] <= 60
    assert max(pauses) <= 10
    assert sum(pauses[:3]) < 2
    assert "tried" in caught.value.__notes__[0]
