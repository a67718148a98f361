from pathlib import Path

import pytest

from lmr.errors import SettingsError
from lmr.lab.hosts import read_lab

EXAMPLE = Path(__file__).parents[2] / "deploy" / "lab" / "hosts.toml"
SCHEDULER = '[[host]]\nssh = "nii@one"\nrole = "scheduler"\n'


def lab(tmp_path, text):
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    return read_lab(path)


def test_the_example_that_users_copy():
    lab = read_lab(EXAMPLE)
    assert lab.scheduler == "tls://192.168.1.10:8786"
    assert [host.role for host in lab.hosts] == ["scheduler", "cpu", "cpu", "gpu"]
    assert lab.tls == EXAMPLE.parent / "certs"


def test_the_schedulers_address_comes_from_ssh_unless_it_has_another(tmp_path):
    text = 'tls = "certs"\nport = 9000\n' + SCHEDULER
    assert lab(tmp_path, text).scheduler == "tls://one:9000"
    assert lab(tmp_path, text + 'address = "10.0.0.1"').scheduler == "tls://10.0.0.1:9000"
    for written in ("2001:db8::7", "[2001:db8::7]"):
        assert lab(tmp_path, text + f'address = "{written}"').scheduler == "tls://[2001:db8::7]:9000"


def test_paths_count_from_the_file(tmp_path):
    found = lab(tmp_path, 'tls = "certs"\nssh_config = "/etc/other"\n' + SCHEDULER)
    assert found.tls == tmp_path / "certs"
    assert found.ssh_config == Path("/etc/other")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tls = ", "not valid TOML"),
        (SCHEDULER, "tls is not valid"),
        ('tls = "certs"\n', "host is not valid"),
        (
            'tls = "certs"\n' + SCHEDULER + SCHEDULER.replace("one", "two"),
            "one host has the role scheduler, not 2",
        ),
        ('tls = "certs"\n' + SCHEDULER.replace("scheduler", "cpu"), "one host has the role scheduler, not 0"),
        (
            'tls = "certs"\n' + SCHEDULER + 2 * '[[host]]\nssh = "two"\nrole = "cpu"\n',
            "listed twice: two as cpu",
        ),
        ('tls = "certs"\n' + SCHEDULER + "cores = 4\n", "host.0.cores is not valid"),
        ('tls = "certs"\n' + SCHEDULER + "workers = 0\n", "host.0.workers is not valid"),
        # An ssh name that begins with a dash would be read as an option.
        ('tls = "certs"\n' + SCHEDULER.replace("nii@one", "-oProxyCommand=x"), "host.0.ssh is not valid"),
        ('name = "../other"\ntls = "certs"\n' + SCHEDULER, "name is not valid"),
    ],
)
def test_what_is_no_lab_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(SettingsError, match=r"see deploy/lab/hosts.toml") as caught:
        lab(tmp_path, text)
    assert says in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        read_lab(tmp_path / "none.toml")
