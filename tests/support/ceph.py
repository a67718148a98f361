"""A real S3 server, Ceph's object gateway, on one host: a monitor, one store in memory, the gateway.

Debian: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd
"""

import os
import shutil
import sys
import time
import uuid
from contextlib import contextmanager, suppress

__all__ = ["ACCESS_KEY", "SECRET_KEY", "s3_server", "why_not"]

ACCESS_KEY, SECRET_KEY = "LMRTESTKEY", "lmr-test-secret"

CONFIGURATION = """\
[global]
fsid = {fsid}
run dir = {folder}
auth cluster required = none
auth service required = none
auth client required = none
osd crush chooseleaf type = 0
osd class update on start = false
osd crush update on start = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
mon host = v1:127.0.0.1:6789
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
heartbeat file =
[mon.a]
mon data = {folder}/mon
public addr = v1:127.0.0.1:6789
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[client.rgw]
rgw frontends = beast endpoint={address}:7480
rgw thread pool size = 32
rgw enable usage log = false
rgw run sync thread = false
"""


def why_not():
    """Return why Ceph cannot be started here, or None."""
    programs = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        return f"Ceph is not installed ({', '.join(lacking)}): apt-get install radosgw ceph-mon ceph-osd"
    return None


@contextmanager
def s3_server(host, folder):
    """Run the server on a host of a network; yields its URL. It ends with the host."""
    folder.mkdir(exist_ok=True)
    (folder / "mon").mkdir()
    (folder / "osd").mkdir()
    identity = str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(CONFIGURATION.format(fsid=identity, folder=folder, address=host.address))
    log = folder / "start.log"
    settings = ("-c", str(configuration))
    root = ("--setuser", "root", "--setgroup", "root")
    monitors = str(folder / "monmap")
    host.run(["monmaptool", "--create", "--addv", "a", "[v1:127.0.0.1:6789]", "--fsid", identity, monitors])
    host.run(["ceph-mon", *settings, "--id", "a", "--mkfs", "--monmap", monitors])
    host.run(["ceph-mon", *settings, "--id", "a", *root])
    disk = str(uuid.uuid4())
    number = _retried(host, ["ceph", *settings, "osd", "create", disk]).strip()
    store = ["ceph-osd", *settings, "--id", number]
    # Left to itself, the store enters the map as it starts, and now and then too early for the monitor.
    enter = ["osd", "crush", "add", f"osd.{number}", "1.0", "root=default", f"host={host.name}"]
    _retried(host, ["ceph", *settings, *enter])
    host.run([*store, "--mkfs", "--osd-objectstore", "memstore", "--osd-uuid", disk])
    host.run([*store, *root])
    host.start(["radosgw", *settings, "-n", "client.rgw", "-f", *root], log)
    url = f"http://{host.address}:7480"
    _wait_for(host, url, log)
    user = ["user", "create", "--uid", "lmr", "--display-name", "lmr"]
    keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
    host.run(["radosgw-admin", *settings, "-n", "client.rgw", *user, *keys])
    yield url


def _retried(host, arguments, times=20):
    # Right after its start a monitor refuses now and then ("EPERM: problem getting command descriptions").
    for _ in range(times - 1):
        with suppress(AssertionError):
            return host.run(arguments)
        time.sleep(1)
    return host.run(arguments)


def _wait_for(host, url, log, seconds=180):
    ask = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=5).status)"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if host.start([sys.executable, "-c", ask], os.devnull).wait(60) == 0:
            return
        time.sleep(0.5)
    raise AssertionError(f"the S3 server did not start:\n{log.read_text()}")
