"""Several hosts on one machine: network namespaces behind a bridge, each with an address of its own.

The bridge stands in a namespace of its own, so nothing of the machine's network is touched. Needs root and
`ip` (Debian: iproute2).
"""

import os
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress

__all__ = ["Host", "Network", "network", "why_not"]


def why_not():
    """Return why there can be no network namespaces here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip (iproute2)"
    name = f"lmr-{uuid.uuid4().hex[:8]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    try:
        if tried.returncode:
            return f"network namespaces are not allowed here: {tried.stderr.strip()}"
        bridge = ["ip", "-n", name, "link", "add", "br0", "type", "bridge"]
        tried = subprocess.run(bridge, capture_output=True, text=True, check=False)
        return f"bridges are not allowed here: {tried.stderr.strip()}" if tried.returncode else None
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Host:
    """A host of a network; `name` is its name there, `address` its IP address."""

    def __init__(self, network, name, address):
        self.network, self.name, self.address = network, name, address
        self.namespace = f"{network.name}-{name}"
        self.started = []

    def start(self, arguments, log, environment=None):
        """Start a process on this host; it ends with the network at the latest."""
        with open(log, "ab") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def run(self, arguments, environment=None, seconds=300):
        """Run a process on this host to its end; return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pids(self):
        """Return the processes on this host."""
        told = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in told.stdout.split()]

    def cut(self):
        """Take the cable out."""
        self.network.ip("-n", self.network.switch, "link", "set", f"p-{self.name}", "down")

    def mend(self):
        """Put the cable back."""
        self.network.ip("-n", self.network.switch, "link", "set", f"p-{self.name}", "up")

    def end(self):
        """End all processes on this host."""
        for _ in range(50):
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not self.pids():
                break
            time.sleep(0.1)
        for process in self.started:
            process.wait(10)


class Network:
    """A bridge in a namespace of its own, and the hosts behind it."""

    def __init__(self, names):
        self.name = f"lmr-{uuid.uuid4().hex[:8]}"
        self.switch = f"{self.name}-switch"
        # 10.77.0.0/24 exists behind this bridge only: other tests' networks may have the same.
        self.hosts = {name: Host(self, name, f"10.77.0.{i}") for i, name in enumerate(names, 1)}

    def __getitem__(self, name):
        return self.hosts[name]

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def plug(self):
        self.ip("netns", "add", self.switch)
        self.ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        self.ip("-n", self.switch, "link", "set", "br0", "up")
        for host in self.hosts.values():
            self.ip("netns", "add", host.namespace)
            plug, port = ("eth0", "netns", host.namespace), (f"p-{host.name}", "netns", self.switch)
            self.ip("link", "add", *plug, "type", "veth", "peer", "name", *port)
            self.ip("-n", self.switch, "link", "set", f"p-{host.name}", "master", "br0", "up")
            self.ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            self.ip("-n", host.namespace, "link", "set", "eth0", "up")
            self.ip("-n", host.namespace, "link", "set", "lo", "up")

    def unplug(self):
        for host in self.hosts.values():
            host.end()
        for namespace in (*(host.namespace for host in self.hosts.values()), self.switch):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


@contextmanager
def network(*names):
    """Make a network of hosts; on leaving, failed or ended, all its processes and namespaces are gone."""
    made = Network(names)
    with ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, _leave)
        stack.callback(signal.signal, signal.SIGTERM, before)
        stack.callback(made.unplug)
        made.plug()
        yield made


def _leave(*_):
    raise KeyboardInterrupt  # which pytest cleans up after
