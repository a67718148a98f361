import errno
import os
import signal
import socket
import ssl
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner as Click

from lmr.cluster import commands
from lmr.cluster.certificates import make_certificates
from lmr.cluster.client import connect, workers_of
from lmr.cluster.commands import Command, scheduler_command, supervise, worker_command
from lmr.cluster.entry import explained
from lmr.errors import ClusterError
from tests.support import servers


def option(command, name):
    arguments = command.arguments
    return arguments[arguments.index(name) + 1]


@pytest.fixture
def certs(tmp_path):
    make_certificates(tmp_path / "certs")
    return str(tmp_path / "certs")


def test_a_scheduler_forgives_deaths_and_hides_its_dashboard(certs):
    command = scheduler_command(tls=certs)
    assert command.environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "1000"
    assert command.environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    assert option(command, "--dashboard-address") == "127.0.0.1:8787"
    assert option(command, "--tls-key") == f"{certs}/scheduler.key"
    plain = scheduler_command()
    assert option(plain, "--host") == "tcp://127.0.0.1"
    assert "--tls-cert" not in plain.arguments


@pytest.mark.parametrize("host", ["0.0.0.0", "8.8.8.8", "::", "::ffff:8.8.8.8"])
def test_a_dashboard_for_everyone_must_be_asked_for(host, certs):
    with pytest.raises(ClusterError, match=f"no password(.|\n)*--dashboard-host {host}"):
        scheduler_command(tls=certs, dashboard_host=host)
    assert host in option(
        scheduler_command(tls=certs, dashboard_host=host, unprotected=True), "--dashboard-address"
    )
    for private in ("10.1.2.3", "192.168.0.1", "::1"):
        scheduler_command(tls=certs, dashboard_host=private)


def test_ports_without_tls_that_others_reach_must_be_asked_for(monkeypatch):
    with pytest.raises(ClusterError, match=r"runs whatever anyone sends it\ngot: --host 0\.0\.0\.0"):
        scheduler_command(host="0.0.0.0")
    assert option(scheduler_command(host="0.0.0.0", unprotected=True), "--host") == "tcp://0.0.0.0"
    monkeypatch.setattr(commands, "own_host", lambda _: "10.1.2.3")
    with pytest.raises(ClusterError, match=r"runs whatever anyone sends it\ngot: tcp://10\.1\.2\.1:8786"):
        worker_command("tcp://10.1.2.1:8786")
    assert option(worker_command("tcp://10.1.2.1:8786", unprotected=True), "--host") == "10.1.2.3"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 32 GiB, whatever this one has."""
    monkeypatch.setattr(commands, "memory_bytes", lambda: 32 << 30)


def test_a_cpu_worker_has_one_thread_and_says_what_it_is(certs):
    command = worker_command(
        "tls://127.0.0.1:8786", tls=certs, workers=3, memory_per_worker="4GB", name="w1", cache="/scratch"
    )
    assert command.arguments[:5] == (
        *(sys.executable, "-m", "lmr.cluster.entry", "worker"),
        "tls://127.0.0.1:8786",
    )
    for name, value in (
        ("--nworkers", "3"),
        ("--nthreads", "1"),
        ("--resources", "CPU=1"),
        ("--memory-limit", "4000000000"),
        ("--name", "w1"),
        ("--death-timeout", "180"),
        ("--host", "127.0.0.1"),
        ("--tls-cert", f"{certs}/worker.pem"),
    ):
        assert option(command, name) == value
    assert command.environment["LMR_CACHE"] == "/scratch"
    assert command.environment["OMP_NUM_THREADS"] == command.environment["OPENBLAS_NUM_THREADS"] == "1"
    assert int(command.environment["MALLOC_TRIM_THRESHOLD_"]) > 2**20  # Dask's own is 64 KiB
    every_core = worker_command("tcp://127.0.0.1:8786")
    assert option(every_core, "--nworkers") == str(len(os.sched_getaffinity(0)))


def test_as_many_workers_as_memory_allows(monkeypatch):
    monkeypatch.setattr(commands, "usable_cpus", lambda: 64)
    command = worker_command("tcp://127.0.0.1:8786")
    assert (option(command, "--nworkers"), option(command, "--memory-limit")) == ("64", str((32 << 30) // 64))
    command = worker_command("tcp://127.0.0.1:8786", memory_per_worker="8GB")
    assert (option(command, "--nworkers"), option(command, "--memory-limit")) == ("4", "8000000000")
    with pytest.raises(ClusterError, match="more memory than this machine or container has"):
        worker_command("tcp://127.0.0.1:8786", workers=64, memory_per_worker="8GB")


def test_a_contact_address_is_that_of_one_worker():
    command = worker_command("tcp://127.0.0.1:8786", workers=1, contact_address="gate.example:9000")
    assert option(command, "--listen-address") == "tcp://127.0.0.1:9000"
    assert option(command, "--contact-address") == "tcp://gate.example:9000"
    assert "--host" not in command.arguments
    with pytest.raises(
        ClusterError, match=r"one worker\ngot: --contact-address gate.example:9000 with 2 work"
    ):
        worker_command("tcp://127.0.0.1:8786", workers=2, contact_address="gate.example:9000")


@pytest.mark.parametrize("text", ["gate.example", "gate.example:0", "0.0.0.0:9000", "[::]:9000", "::1:9000"])
def test_a_contact_address_that_nobody_can_call_is_refused(text):
    with pytest.raises(
        ClusterError, match=r"--contact-address is no address .*\n.*\nfix: .*192\.168\.7\.2:9000"
    ):
        worker_command("tcp://127.0.0.1:8786", workers=1, contact_address=text)


def test_a_worker_is_reached_at_its_contact_address(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with servers.scheduler(tmp_path) as address:
        command = worker_command(address, workers=1, contact_address=f"localhost:{port}")
        with servers.started(command, tmp_path / "worker.log"):
            servers.said(tmp_path / "worker.log", "Registered to")
            with connect(address, None) as client:
                assert list(workers_of(client)) == [f"tcp://127.0.0.1:{port}"]
                assert client.submit(sum, [1, 2]).result(30) == 3


def ended(command, log, **environment):
    with servers.started(
        replace(command, environment={**command.environment, **environment}), log
    ) as process:
        assert process.wait(120) == 1
    return log.read_text()


def test_a_port_in_use_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = ended(scheduler_command(port=port, dashboard_port=0), tmp_path / "log")
    assert "error: the scheduler did not start: the port is taken by another process\ngot: OSError" in told
    assert "fix: choose another --port" in told
    assert "Traceback" not in told


def test_an_address_of_another_machine_is_told(tmp_path):
    command = scheduler_command(host="192.0.2.7", port=0, dashboard_port=0, unprotected=True)
    assert "the address is none of this machine's" in ended(command, tmp_path / "log")


def test_a_bad_option_of_dask_is_told(tmp_path):
    command = scheduler_command(port=0, dashboard_port=0)
    told = ended(
        command,
        tmp_path / "log",
        DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1000",
        DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="soon",
    )
    assert "error: the scheduler ended with an error of Dask\ngot: " in told
    assert "DASK_… variables" in told


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no further process"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk for temporary files"),
        (ssl.SSLError("[SSL: KEY_VALUES_MISMATCH] key values mismatch"), "certificate cannot be used"),
        (RuntimeError("any"), "ended with an error of Dask"),
    ],
)
def test_errors_of_dask_are_explained(error, word):
    wrapped = RuntimeError("Nanny failed to start.")
    wrapped.__cause__ = error
    assert word in str(explained(wrapped, "worker"))
    assert str(explained(wrapped, "worker")).count("\nfix: ") == 1


def test_a_full_table_of_processes_is_told(monkeypatch):
    def full(*_, **__):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(commands.subprocess, "Popen", full)
    with pytest.raises(ClusterError, match="no further process can be started"):
        supervise(Command(("lmr",)))


def test_what_lies_in_the_folder_of_the_start_is_not_imported(tmp_path):
    """Another checkout of lmr, of dask, of anything."""
    trap = tmp_path / "elsewhere"
    for package in ("lmr", "dask", "distributed"):
        (trap / package).mkdir(parents=True)
        (trap / package / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    command = scheduler_command(port=0, dashboard_port=0)
    with servers.started(command, tmp_path / "s.log", cwd=trap):
        address = servers.said(tmp_path / "s.log", r"Scheduler at:\s+(\S+)")[1]
        worker = worker_command(address, workers=1)
        with servers.started(worker, tmp_path / "w.log", cwd=trap):
            servers.said(tmp_path / "w.log", "Registered to")
    assert "the wrong one" not in (tmp_path / "s.log").read_text() + (tmp_path / "w.log").read_text()


# The options that are used here of those that dask-cuda 26.10.0's `dask cuda worker` declares; it cannot be
# imported without a GPU driver. It lets unknown options pass in silence, so each is held against this list.
CUDA_OPTIONS = {
    *(
        "--host",
        "--nthreads",
        "--name",
        "--memory-limit",
        "--resources",
        "--dashboard-address",
        "--preload",
        "--death-timeout",
    ),
    *("--tls-ca-file", "--tls-cert", "--tls-key"),
}


def test_a_gpu_worker_asks_dask_cuda_for_what_it_knows(certs, monkeypatch):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(commands.ctypes, "CDLL", lambda name: object())
    command = worker_command("tls://127.0.0.1:8786", tls=certs, gpu=True, name="g", memory_per_worker="16GB")
    assert command.arguments[3:6] == ("cuda", "worker", "tls://127.0.0.1:8786")
    assert option(command, "--resources") == "GPU=1"
    assert option(command, "--nthreads") == "1"
    assert {argument for argument in command.arguments[6:] if argument.startswith("--")} <= CUDA_OPTIONS
    with pytest.raises(ClusterError, match="one GPU worker per GPU\ngot: --gpu with --workers 2"):
        worker_command("tls://127.0.0.1:8786", tls=certs, gpu=True, workers=2)


def test_gpu_workers_without_dask_cuda_say_so(monkeypatch):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"need dask-cuda(.|\n)*lmr\[gpu\]"):
        worker_command("tcp://127.0.0.1:8786", gpu=True)


def test_gpu_workers_without_a_driver_say_so(monkeypatch):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: object())

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(commands.ctypes, "CDLL", missing)
    with pytest.raises(ClusterError, match=r"NVIDIA's driver\ngot: libnvidia-ml(.|\n)*--gpus all"):
        worker_command("tcp://127.0.0.1:8786", gpu=True)


@pytest.mark.parametrize("which", ["scheduler", "worker"])
def test_dask_takes_the_options(which, certs):
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    main, command = {
        "scheduler": (scheduler, scheduler_command(tls=certs, host="127.0.0.1")),
        "worker": (
            worker,
            worker_command("tls://127.0.0.1:8786", tls=certs, workers=2, name="a", cache="/c"),
        ),
    }[which]
    arguments = list(command.arguments[4:])
    assert Click().invoke(main, [*arguments, "--version"]).exit_code == 0
    # Were an option unknown, Dask would take it for a preload's argument.
    context = main.make_context(which, arguments)
    assert not context.params["preload_argv"]


def test_incomplete_addresses_are_named():
    for address in ("tls://host", "host", "tcp://:8786"):
        with pytest.raises(ClusterError, match="not the address of a scheduler"):
            worker_command(address)
    with pytest.raises(ClusterError, match=r"there is no host nowhere\.invalid"):
        worker_command("tcp://nowhere.invalid:8786")


@pytest.mark.parametrize(("ends", "code"), [(0, 1), (1, 1), (3, 3)])
def test_workers_that_leave_unasked_are_a_failure(ends, code):
    assert supervise(Command((sys.executable, "-c", f"raise SystemExit({ends})"))) == code


def test_workers_that_are_told_to_stop_end_well(tmp_path):
    script = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('up', flush=True)"
    log = tmp_path / "log"
    inner = f"Command((sys.executable, '-c', {script + chr(10) + 'time.sleep(60)'!r}))"
    outer = f"import sys; from lmr.cluster.commands import *; sys.exit(supervise({inner}))"
    with servers.started(Command((sys.executable, "-c", outer)), log) as process:
        servers.said(log, "up")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
