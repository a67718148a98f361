"""What the commands of `lmr cluster` on AWS share: how they find, price, size and end a cluster."""

import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lmr.cli.cluster import aws_tables
from lmr.cloud import bundle, fleet, stack
from lmr.cloud.found import Cluster, find, kept_bucket, names
from lmr.cloud.leftovers import Leftover, leftovers
from lmr.cloud.prices import Limits, Prices, Rate, check_limits, hours_ahead, month_start, spent_usd
from lmr.cloud.redact import RedactedText, Redactor
from lmr.cloud.session import Aws, open_aws
from lmr.cloud.spending import read_spending, record, write_spending
from lmr.cluster.address import Address
from lmr.cluster.certificates import make_certificates, store_certificates
from lmr.cluster.client import connect as connect_to
from lmr.errors import CloudError
from lmr.scheduler.backlog import Backlog, read_backlog, retire_hosts

__all__ = [
    "THROUGH_TUNNEL",
    "Name",
    "Poll",
    "PricesFile",
    "Region",
    "Yes",
    "ask",
    "asking",
    "certificates",
    "check_budget",
    "end_cluster",
    "find_cluster",
    "folder_of",
    "leaving",
    "new_certificates",
    "now_utc",
    "open_session",
    "out",
    "resize",
    "write_rate",
]

redactor = Redactor()
out = Console(file=RedactedText(lambda: sys.stdout, redactor), highlight=False, markup=False)  # type: ignore[arg-type]

THROUGH_TUNNEL = "tls://127.0.0.1:8786"

Name = Annotated[str, typer.Option("--name", help="The cluster's name.")]
Region = Annotated[str | None, typer.Option(help="Region of AWS; else as the AWS command line finds it.")]
PricesFile = Annotated[str | None, typer.Option("--prices", help="Your price table, TOML.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Poll = Annotated[float, typer.Option(hidden=True)]


def open_session(region: str | None, prices: Prices | None) -> Aws:
    """Open a session in the region that the prices are for."""
    aws = open_aws(redactor, region=region)
    if prices is not None and prices.region != aws.region:
        raise CloudError(
            f"the price table is for {prices.region}, the cluster would be in {aws.region}",
            got=f"prices of {prices.checked}",
            fix=f"`lmr cluster prices > prices.toml`, fill in {aws.region}'s prices, --prices prices.toml",
        )
    return aws


def find_cluster(aws: Aws, name: str) -> Cluster:
    """Find a cluster, or say which there are."""
    cluster = find(aws, name)
    if cluster is None or not cluster.groups:
        raise CloudError(
            f"there is no cluster {name} in {aws.region}",
            got=f"clusters there: {', '.join(names(aws)) or 'none'}"
            if cluster is None
            else cluster.status.lower(),
            fix="`lmr cluster up --name …`, or --region",
        )
    return cluster


def check_budget(
    aws: Aws, limits: Limits, bucket: str, usd_per_hour: float, now: datetime, stop: datetime | None
) -> None:
    """Refuse what would pass a limit, per hour or with what this month has cost so far."""
    ledger = read_spending(aws, bucket) if bucket else []
    ahead = [rate.at for rate in ledger if rate.at > now]
    check_limits(
        limits,
        usd_per_hour=usd_per_hour,
        hours=hours_ahead(now, stop or min(ahead, default=None)),
        spent_this_month_usd=spent_usd(ledger, month_start(now), now),
    )


def write_rate(aws: Aws, cluster: Cluster, usd: float, now: datetime, stop: Rate | None = None) -> None:
    """Write into the ledger what the cluster costs from now on."""
    write_spending(aws, cluster.bucket, record(read_spending(aws, cluster.bucket), now, usd, stop))


def resize(
    aws: Aws, cluster: Cluster, sizes: Mapping[str, int], usd: float, now: datetime, leave: list[str]
) -> None:
    """Change the groups' sizes, and the ledger with them."""
    # Growing is written before it happens and shrinking after: the ledger never says too little.
    grows = any(sizes[kind] > cluster.sizes[kind] for kind in sizes)
    if grows:
        write_rate(aws, cluster, usd, now)
    fleet.resize(aws, cluster.groups, sizes, leave)
    if not grows:
        write_rate(aws, cluster, usd, now)


def leaving(
    aws: Aws, cluster: Cluster, sizes: Mapping[str, int], client: Any, demand: Backlog | None
) -> list[str]:
    """Choose the least busy machines to leave where a group shrinks, and retire their workers first."""
    leave: list[str] = []
    hosts: list[str] = []
    busy = demand.busy if demand else {}
    for kind, size in sizes.items():
        surplus = cluster.sizes[kind] - size
        members = [one for one in fleet.instances(aws, cluster.name) if one.group == kind]
        members.sort(key=lambda one: busy.get(one.private_ip, 0))
        chosen = members[: max(surplus, 0)]
        leave += [one.id for one in chosen]
        hosts += [one.private_ip for one in chosen]
    if client is not None and hosts:
        retire_hosts(client, hosts)
    return leave


@contextmanager
def asking(
    aws: Aws, name: str, scheduler: str | None, tls: str | None, *, needed: bool
) -> Iterator[tuple[Any, Backlog | None]]:
    """Ask the scheduler what it has to do; where that is not needed and nothing listens, go on without.

    Without an address it is the one that `lmr cluster connect` opens; without a folder, `~/.lmr/NAME`.
    """
    scheduler = scheduler or THROUGH_TUNNEL
    if not _listens(scheduler):
        if needed:
            raise CloudError(
                f"nothing answers at {scheduler}",
                got="no tunnel to the scheduler",
                fix=f"`lmr cluster connect --name {name}` in a terminal of its own",
            )
        yield None, None
        return
    folder = str(certificates(aws, name, tls)) if Address.parse(scheduler).encrypted else None
    with connect_to(scheduler, folder) as client:
        yield client, read_backlog(client)


def _listens(address: str) -> bool:
    where = Address.parse(address)
    try:
        with socket.create_connection((where.host, where.port), timeout=2):
            return True
    except OSError:
        return False


def certificates(aws: Aws, name: str, tls: str | None) -> Path:
    """Return the folder with the client's certificate; fetch it where it is not there."""
    folder = folder_of(name, tls)
    if not (folder / "client.pem").is_file():
        _refuse_foreign(folder, name)
        store_certificates(folder, bundle.fetch_certificates(aws, name))
    return folder


def new_certificates(folder: Path, name: str) -> None:
    """Make certificates for a new cluster; only those of an `up` that was interrupted are replaced."""
    _refuse_foreign(folder, name)
    make_certificates(folder, force=True)


def _refuse_foreign(folder: Path, name: str) -> None:
    """Refuse to write over certificates that may be another cluster's: LMR_TLS is set for any cluster."""
    if folder != folder_of(name) and (folder / "ca.pem").exists():
        raise CloudError(
            f"the certificates in {folder} may be another cluster's",
            got="a ca.pem that this cluster has not used from here",
            fix=f"--tls with a folder that is not there yet, or `--tls ''` for {folder_of(name)}",
        )


def folder_of(name: str, tls: str | None = None) -> Path:
    """Return where a cluster's certificates lie on this machine, unless a folder is named."""
    return Path(tls) if tls else Path.home() / ".lmr" / name


def ask(question: str, yes: bool) -> None:
    """Ask whether to go on; end the command if not."""
    if not yes:
        typer.confirm(question, abort=True)


def now_utc() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def end_cluster(aws: Aws, name: str, poll_seconds: float) -> None:
    """End a cluster, and prove that nothing is left."""
    cluster = find(aws, name)
    with out.status("ending machines") as shown:
        if cluster is not None and cluster.groups:
            fleet.resize(aws, cluster.groups, {"cpu": 0, "gpu": 0})
        fleet.terminate(aws, [one.id for one in fleet.instances(aws, name)])
        if cluster is not None:
            stack.delete_stack(
                aws,
                cluster.stack,
                progress=lambda text: shown.update(f"AWS: {text}"),
                poll_seconds=poll_seconds,
            )
        bundle.forget_parameters(aws, name)
        if kept := kept_bucket(aws, name):
            bundle.remove_bundles(aws, kept)
        left = _settled(aws, name, poll_seconds)
    if cluster is not None and cluster.bucket:
        now = now_utc()
        ledger = record(read_spending(aws, cluster.bucket), now, 0.0)
        write_spending(aws, cluster.bucket, ledger)
        out.print(
            f"cost       this month at most {spent_usd(ledger, month_start(now), now):.2f} USD, estimated"
        )
    billed = [one for one in left if one.kind != "bucket"]
    if billed:
        out.print(aws_tables.leftovers_table(billed))
        raise CloudError(
            f"{len(billed)} things of the cluster {name} are still there",
            fix="end them as shown, then `lmr cluster down` again to see that nothing is left",
        )
    out.print(
        f"nothing billable is left of the cluster {name} in {aws.region}"
        + (" but its bucket" if left else "")
    )
    for one in left:
        out.print(f"the bucket and its results stay; to delete them: {one.fix}", soft_wrap=True)


def _settled(aws: Aws, name: str, poll_seconds: float) -> list[Leftover]:
    """Look what is left; look again a few times, since AWS needs a while to forget disks."""
    for attempt in range(12):
        left = leftovers(aws, name)
        if all(one.kind == "bucket" for one in left) or attempt == 11:
            return left
        time.sleep(poll_seconds)
    raise AssertionError
