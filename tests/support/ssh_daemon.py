"""An ssh daemon on loopback that stands for one server: a port and a home folder of its own."""

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp {sftp}
ForceCommand cd {home} && HOME={home} exec sh -c "$SSH_ORIGINAL_COMMAND"
"""

CLIENT = """
Host {name}
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
"""

SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


@contextmanager
def server(name, root):
    """Run a daemon whose users are at home in `root/name`; yields its part of a client's configuration."""
    home, folder = root / name, root / f"{name}.sshd"
    home.mkdir()
    folder.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's daemon locks itself in
    for key in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / key)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sftp = next(path for path in SFTP if Path(path).exists())
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder, home=home, sftp=sftp))
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(port, daemon, folder / "log")
        yield CLIENT.format(name=name, port=port, folder=folder)
    finally:
        daemon.terminate()
        daemon.wait()


def _wait(port, daemon, log):
    for _ in range(100):
        assert daemon.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the ssh daemon does not answer")
