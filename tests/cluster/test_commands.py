import os
import signal
import sys

import pytest
from click.testing import CliRunner as Click

from lmr.cluster import commands
from lmr.cluster.certificates import make_certificates
from lmr.cluster.commands import Command, scheduler_command, supervise, worker_command
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


@pytest.mark.parametrize("host", ["0.0.0.0", "8.8.8.8", "::"])
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


def test_a_cpu_worker_has_one_thread_and_says_what_it_is(certs):
    command = worker_command(
        "tls://127.0.0.1:8786", tls=certs, workers=3, memory_per_worker="4GB", name="w1", cache="/scratch"
    )
    assert command.arguments[:5] == (sys.executable, "-m", "dask", "worker", "tls://127.0.0.1:8786")
    for name, value in (
        ("--nworkers", "3"),
        ("--nthreads", "1"),
        ("--resources", "CPU=1"),
        ("--memory-limit", "4GB"),
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
