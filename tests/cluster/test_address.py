"""Addresses that users type, on IPv4 and IPv6."""

import pytest

from lmr.cluster.address import Address, host_name, own_host, resolve
from lmr.errors import ClusterError


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port"),
    [
        ("tls://host:8786", "tls", "host", 8786),
        ("tcp://10.1.2.3:0", "tcp", "10.1.2.3", 0),
        ("host.lab:1", "tcp", "host.lab", 1),
        ("[::1]:8786", "tcp", "::1", 8786),
        ("tls://[2001:db8::7]:65535", "tls", "2001:db8::7", 65535),
        ("tls://[fe80::1%eth0]:8786", "tls", "fe80::1%eth0", 8786),
        (" tls://host:8786/ ", "tls", "host", 8786),
        ("TLS://[::1]:8786", "tls", "::1", 8786),
    ],
)
def test_an_address_is_taken_apart_and_put_together(text, scheme, host, port):
    address = Address.parse(text)
    assert address == Address(scheme, host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("host", "tls://host:8786"),
        ("tcp://10.1.2.3", "tcp://10.1.2.3:8786"),
        ("::1", "tls://[::1]:8786"),
        ("tls://2001:db8::7", "tls://[2001:db8::7]:8786"),
        ("[::1]", "tls://[::1]:8786"),
        ("tcp://[fe80::1%eth0]", "tcp://[fe80::1%eth0]:8786"),
    ],
)
def test_what_was_meant_is_the_fix(text, meant):
    with pytest.raises(ClusterError, match="not the address of a scheduler") as caught:
        Address.parse(text)
    fixed = caught.value.fix.rpartition(" ")[2]
    assert fixed == meant
    assert str(Address.parse(fixed)) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", "host:port", "host:70000", "a b:1", "tls://", "tls://:8786", "tls://me@host:8786"),
        *("http://host:80", "tls://host:8786/status", "[host]:8786", "[::1]8786", "[::1:8786"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(
        ClusterError, match=r"not the address of a scheduler\n.*\nfix: such as tls://host:8786"
    ):
        Address.parse(text)


def test_hosts_stand_in_brackets_where_a_port_follows():
    assert [host_name(host) for host in ("::1", "[::1]", "host", "10.1.2.3")] == [
        "[::1]",
        "[::1]",
        "host",
        "10.1.2.3",
    ]


def test_the_way_to_a_scheduler_is_looked_up_for_both_families():
    assert own_host("tcp://127.0.0.1:8786") == "127.0.0.1"
    try:
        there = own_host("tls://[::1]:8786")
    except ClusterError:
        pytest.skip("this machine has no ::1")
    assert there == "::1"
    assert [str(address) for address in resolve("[::1]")] == ["::1"]


def test_an_ipv4_address_in_ipv6_clothes_is_what_it_stands_for():
    assert [str(address) for address in resolve("[::ffff:8.8.8.8]")] == ["8.8.8.8"]
    assert own_host("tcp://[::ffff:127.0.0.1]:8786") in ("127.0.0.1", "::ffff:127.0.0.1")


def test_unknown_hosts_are_named():
    with pytest.raises(ClusterError, match=r"there is no host no-such-host\.invalid"):
        own_host("tls://no-such-host.invalid:8786")
