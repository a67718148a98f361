"""The file that lists a lab's servers: who they are and what each is for."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmr.errors import SettingsError

__all__ = ["Host", "Lab", "read_lab"]

# Both become part of paths and command lines on other machines.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
HostName = Annotated[str, Field(pattern=r"^\[?[A-Za-z0-9:][A-Za-z0-9._:%-]*\]?$")]
SshName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@:%-]*$")]


class Host(BaseModel):
    """One server in one role; a server with two roles is listed twice.

    Attributes
    ----------
    ssh
        As ssh knows it: `user@host`, or an alias of `~/.ssh/config` with its port, key and jump host.
    role
        `scheduler`, `cpu` or `gpu`.
    address
        By which the other servers and the laptop reach the scheduler; None: the host in `ssh`.
    workers
        CPU worker processes; None: one per core.
    memory_per_worker
        At this much a worker is ended and started again, such as `4GB`.
    cache
        Folder on a disk of the server for unpacked datasets; None: under its temporary folder.
    lmr
        Path of the `lmr` command there; None: the lab's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ssh: SshName
    role: Literal["scheduler", "cpu", "gpu"]
    address: HostName | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    memory_per_worker: str = "auto"
    cache: str | None = None
    lmr: str | None = None


class Lab(BaseModel):
    """A lab's servers.

    Attributes
    ----------
    name
        On each server, files are kept under `.lmr/<name>` of the user's home.
    tls
        Folder of `lmr cluster certs` on this machine, relative to the file.
    port
        The scheduler's.
    lmr
        Path of the `lmr` command on the servers, relative to the user's home where it is no absolute one.
    ssh_config
        Another file than `~/.ssh/config`, relative to the file.
    hosts
        One scheduler, any number of `cpu` and `gpu`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = "lab"
    tls: Path
    port: Annotated[int, Field(ge=1, le=65535)] = 8786
    lmr: str = "lmr"
    ssh_config: Path | None = None
    hosts: Annotated[tuple[Host, ...], Field(alias="host", min_length=1)]

    @model_validator(mode="after")
    def _one_scheduler(self) -> "Lab":
        count = sum(host.role == "scheduler" for host in self.hosts)
        if count != 1:
            raise ValueError(f"one host has the role scheduler, not {count}")
        places = [(host.ssh, host.role) for host in self.hosts]
        if twice := sorted({f"{ssh} as {role}" for ssh, role in places if places.count((ssh, role)) > 1}):
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return self

    @property
    def scheduler(self) -> str:
        """Address of the scheduler."""
        host = next(host for host in self.hosts if host.role == "scheduler")
        name = (host.address or host.ssh.rpartition("@")[2]).strip("[]")
        # The lab's floor lies below the cluster's, whose addresses would do this.
        return f"tls://[{name}]:{self.port}" if ":" in name else f"tls://{name}:{self.port}"


def read_lab(path: Path) -> Lab:
    """Read a file of hosts; paths in it count from its own folder.

    Raises
    ------
    SettingsError
        If it is missing, no TOML, or does not describe a lab.
    """
    fix = "see deploy/lab/hosts.toml; `lmr files FOLDER` copies it"
    try:
        lab = Lab.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise SettingsError(f"cannot read {path}", got=error.strerror or str(error), fix=fix) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML", got=str(error), fix=fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where or 'hosts'} is not valid", got=first["msg"], fix=fix) from error
    here = path.parent
    return lab.model_copy(
        update={"tls": here / lab.tls, "ssh_config": lab.ssh_config and here / lab.ssh_config}
    )
