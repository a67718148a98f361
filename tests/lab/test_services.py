import shlex

import pytest

from lmr.errors import ClusterError
from lmr.lab import services
from lmr.lab.hosts import Lab
from tests.support.command_tree import command_at

LAB = Lab.model_validate(
    {
        "tls": "/laptop/certs",
        "lmr": "~/lmr/bin/lmr",
        "host": [
            {"ssh": "nii@10.0.0.1", "role": "scheduler"},
            {"ssh": "nii@10.0.0.1", "role": "cpu", "workers": 8, "memory_per_worker": "4GB", "cache": "/a b"},
            {"ssh": "big", "role": "gpu", "lmr": "/opt/lmr/bin/lmr"},
        ],
    }
)

SCHEDULER, CPU, GPU = LAB.hosts
HERE = {"lmr": "1", "python": "3.11.7", "dask": "2", "distributed": "2", "dask-cuda": "none"}


def remote(call):
    """What the server's shell makes of a call."""
    assert call.arguments[-2] == "--"
    return shlex.split(call.arguments[-1])


def service(host):
    shell, flag, dashes, verb, folder, name, *command = remote(services.start(LAB, host))
    assert (shell, flag, dashes, verb, folder) == ("sh", "-s", "--", "start", ".lmr/lab")
    return name, command


@pytest.mark.parametrize("host", LAB.hosts, ids=lambda host: host.role)
def test_what_is_started_is_what_the_command_line_understands(host):
    name, (lmr, *arguments) = service(host)
    assert name == host.role
    assert lmr == ("/opt/lmr/bin/lmr" if host is GPU else "lmr/bin/lmr")
    command = command_at(arguments.pop(0))
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    options = command.make_context(command.name, arguments).params
    assert options["tls"] == ".lmr/lab/tls"
    if host is SCHEDULER:
        assert options["port"] == 8786
    else:
        assert options["address"] == "tls://10.0.0.1:8786"
        assert options["gpu"] == (host is GPU)
    if host is CPU:
        assert (options["workers"], options["memory_per_worker"], options["cache"]) == (8, "4GB", "/a b")


def test_a_server_gets_its_roles_certificate_and_no_other():
    copied = [services.copy(LAB, host).arguments for host in LAB.hosts]
    names = [[part.rpartition("/")[2] for part in c if part.startswith("/laptop")] for c in copied]
    worker = ["ca.pem", "worker.pem", "worker.key"]
    assert names == [["ca.pem", "scheduler.pem", "scheduler.key"], worker, worker]


def test_ssh_never_waits_for_a_password():
    for call in (services.versions(LAB, CPU), services.copy(LAB, CPU), services.manage("stop", LAB, CPU)):
        assert "BatchMode=yes" in call.arguments


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lmr": "2"}, "another lmr"),
        ({"dask": "3"}, "another dask"),
        ({"python": "3.12.1"}, "another python"),
        ({"distributed": None}, "another distributed"),
    ],
)
def test_other_versions_are_refused(change, says):
    there = {name: number for name, number in {**HERE, **change}.items() if number}
    with pytest.raises(ClusterError, match=f"nii@10.0.0.1 has {says} than this machine"):
        services.differences(CPU, HERE, there)


def test_a_later_python_of_the_same_series_is_no_difference():
    services.differences(CPU, HERE, {**HERE, "python": "3.11.2"})


def test_gpu_workers_need_dask_cuda():
    with pytest.raises(ClusterError, match="dask-cuda on big"):
        services.differences(GPU, HERE, HERE)
    services.differences(GPU, HERE, {**HERE, "dask-cuda": "26.10.0"})
