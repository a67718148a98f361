"""`lmr cluster` on AWS: up, status, scale, connect, bucket, prices, down."""

import getpass
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Annotated

import typer

from lmr.cli.cluster import aws_tables
from lmr.cli.cluster.autoscale import autoscale, retire
from lmr.cli.cluster.aws_session import (
    THROUGH_TUNNEL,
    Name,
    Poll,
    PricesFile,
    Region,
    Yes,
    ask,
    asking,
    certificates,
    check_budget,
    end_cluster,
    find_cluster,
    folder_of,
    leaving,
    new_certificates,
    now_utc,
    open_session,
    out,
    resize,
    write_rate,
)
from lmr.cli.options.shared import Scheduler, Tls
from lmr.cloud import bundle, fleet, stack
from lmr.cloud.found import find, kept_bucket, names, set_limits
from lmr.cloud.prices import (
    Limits,
    Rate,
    check_limits,
    month_start,
    price_fleet,
    read_prices,
    spent_usd,
    total_usd_per_hour,
)
from lmr.cloud.session import Aws
from lmr.cloud.spending import read_spending
from lmr.cluster import tunnel
from lmr.errors import CloudError, ClusterError
from lmr.shipped import shipped

__all__ = ["add_to"]

aws_app = typer.Typer()
aws_app.command()(autoscale)
aws_app.command()(retire)


def add_to(app: typer.Typer) -> None:
    """Put these commands beside those of `lmr cluster`."""
    app.registered_commands += aws_app.registered_commands


@aws_app.command()
def up(
    name: Name,
    cpu: Annotated[int, typer.Option(min=0, help="CPU machines to start with.")] = 0,
    gpu: Annotated[int, typer.Option(min=0, help="GPU machines to start with.")] = 0,
    limit_per_hour: Annotated[float | None, typer.Option(help="USD per hour never to be passed.")] = None,
    limit_per_month: Annotated[float | None, typer.Option(help="USD per month never to be passed.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Empty both groups after so long, whatever happens here.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Its owner, for the tag lmr:owner. Default: your login name.")
    ] = None,
    cpu_types: Annotated[
        str, typer.Option(help="Types of CPU machines, up to three, with commas.")
    ] = "m5.24xlarge,m5a.24xlarge,m6i.24xlarge",
    gpu_types: Annotated[
        str, typer.Option(help="Types of GPU machines, up to two, with commas.")
    ] = "g6.4xlarge,g5.4xlarge",
    scheduler_type: Annotated[str, typer.Option(help="Type of the scheduler's machine.")] = "m5.xlarge",
    cpu_max: Annotated[int, typer.Option(min=1, help="Largest size of the CPU group.")] = 40,
    gpu_max: Annotated[int, typer.Option(min=1, help="Largest size of the GPU group.")] = 8,
    cpu_on_demand: Annotated[
        int, typer.Option(min=0, help="CPU machines on demand; the others are on spot.")
    ] = 1,
    gpu_on_demand: Annotated[
        int, typer.Option(min=0, help="GPU machines on demand; the others are on spot.")
    ] = 1,
    disk_gb: Annotated[int, typer.Option(min=75, help="Disk of each worker machine, GB.")] = 200,
    vpc: Annotated[str | None, typer.Option(help="Network; default: the account's own.")] = None,
    subnets: Annotated[str, typer.Option(help="One to three, each in another zone.")] = "",
    client_cidr: Annotated[str, typer.Option(help="Addresses that may reach the scheduler's port.")] = "",
    cpu_image: Annotated[
        str, typer.Option(help="AMI, or the SSM parameter that names it.")
    ] = stack.CPU_IMAGE,
    gpu_image: Annotated[
        str, typer.Option(help="AMI, or the SSM parameter that names it.")
    ] = stack.GPU_IMAGE,
    tls: Tls = None,
    region: Region = None,
    prices_file: PricesFile = None,
    yes: Yes = False,
    poll_seconds: Poll = 5.0,
) -> None:
    """Start a cluster on AWS; tells its price first. Where it is there with this code: sets its sizes."""
    prices = read_prices(prices_file)
    order = stack.Order(
        name=name,
        owner=owner or getpass.getuser(),
        scheduler_type=scheduler_type,
        cpu_types=tuple(cpu_types.split(",")),
        gpu_types=tuple(gpu_types.split(",")),
        cpu_max=max(cpu_max, cpu),
        gpu_max=max(gpu_max, gpu),
        cpu_on_demand=cpu_on_demand,
        gpu_on_demand=gpu_on_demand,
        disk_gb=disk_gb,
        vpc=vpc,
        subnets=tuple(filter(None, subnets.split(","))),
        client_cidr=client_cidr,
        cpu_image=cpu_image,
        gpu_image=gpu_image,
    )
    charges = price_fleet(order.groups(cpu, gpu), prices)
    out.print(aws_tables.price_table(charges, prices, f"cluster {name}, prices of {prices.checked}"))
    check_limits(Limits(limit_per_hour), usd_per_hour=total_usd_per_hour(charges))
    aws = open_session(region, prices)
    there, now, package = find(aws, name), now_utc(), bundle.own_bundle()
    if there is not None and there.parameters.get("Bundle") != package.digest:
        raise CloudError(
            f"the cluster {name} runs another code of lmr than this machine",
            got=f"{there.parameters.get('Bundle', 'none')[:12]} there, {package.digest[:12]} here",
            fix=f"`lmr cluster scale --name {name} …` goes on with its code;"
            f" `lmr cluster down --name {name}`, then `up`, takes this one (the bucket and its results stay)",
        )
    sizes = {"cpu": cpu, "gpu": gpu}
    known = there.limits if there else Limits()
    limits = Limits(
        known.per_hour if limit_per_hour is None else limit_per_hour,
        known.per_month if limit_per_month is None else limit_per_month,
    )
    if there is not None:
        charges = price_fleet(there.priced(sizes), prices)
    bucket = there.bucket if there else kept_bucket(aws, name)
    stop = now + timedelta(hours=hours) if hours is not None else None
    check_budget(aws, limits, bucket, total_usd_per_hour(charges), now, stop)
    ask(f"start this, at most {total_usd_per_hour(charges):.2f} USD per hour?", yes)
    folder = folder_of(name, tls)
    with out.status("asking AWS") as status:
        # An `up` that was interrupted goes on: the stack may be half made, or without certificates.
        if there is None:
            stack.create(aws, order, package.digest, gpu=gpu > 0)
        cluster = stack.wait(
            aws, name, progress=lambda text: status.update(f"AWS: {text}"), poll_seconds=poll_seconds
        )
        if not bundle.has_certificates(aws, name):
            new_certificates(folder, name)
            bundle.put_certificates(aws, {"lmr:cluster": name, "lmr:owner": order.owner}, folder)
        status.update("sending this code")
        sent = bundle.upload_bundle(aws, cluster.bucket, package)
    set_limits(aws, name, limits)
    out.print(
        f"stack      {cluster.stack}, {'was there' if there else 'made'}; code sent, {sent / 1e6:.1f} MB"
    )
    if "gpu" not in cluster.groups:
        out.print(
            f"GPUs       none: {aws.region} names no image for them; --gpu-image at the start gives one"
        )
    planned = None
    if stop is not None:
        fleet.stop_at(aws, cluster.groups, stop)
        idle = total_usd_per_hour(price_fleet(cluster.priced({"cpu": 0, "gpu": 0}), prices))
        planned = Rate(stop, idle)
        out.print(f"stops      both groups are emptied at {stop:%Y-%m-%d %H:%M} UTC, by AWS itself")
    # Written before machines start: what is not in the ledger must not run.
    write_rate(aws, cluster, total_usd_per_hour(charges), now, planned)
    fleet.resize(aws, cluster.groups, sizes)
    out.print(
        f"scheduler  {cluster.scheduler}, inside the network {cluster.address}\n"
        f"machines   {cpu} CPU and {gpu} GPU asked for\n"
        f"next       lmr cluster connect --name {name}     in a terminal of its own\n"
        f"           lmr cluster status --name {name}\n"
        f"           lmr run … --scheduler {THROUGH_TUNNEL} --tls {folder}\n"
        f"           lmr cluster down --name {name}        when all is done",
        soft_wrap=True,
    )
    for program, fix in tunnel.lacking("aws").items():
        out.print(f"lacking    {program}, for `connect`: {fix}", soft_wrap=True)


@aws_app.command()
def status(
    name: Annotated[str | None, typer.Option("--name", help="The cluster's name; default: list all.")] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    region: Region = None,
    prices_file: PricesFile = None,
) -> None:
    """Show a cluster's machines, workers and cost so far."""
    prices = read_prices(prices_file)
    aws = open_session(region, prices)
    if name is None:
        found = names(aws)
        out.print("\n".join(found) if found else f"there is no cluster in {aws.region}")
        return
    cluster, now = find_cluster(aws, name), now_utc()
    machines = fleet.instances(aws, name)
    out.print(aws_tables.machines_table(machines, prices, now, f"cluster {name} of {cluster.owner}"))
    usd = total_usd_per_hour(price_fleet(cluster.priced(cluster.sizes), prices))
    ledger = read_spending(aws, cluster.bucket)
    month = spent_usd(ledger, month_start(now), now)
    out.print(
        f"asked for  {cluster.sizes['cpu']} CPU and {cluster.sizes['gpu']} GPU machines,"
        f" at most {usd:.2f} USD per hour\n"
        f"cost       estimated: these machines {fleet.running_usd(machines, prices, now):.2f} USD so far;"
        f" this month at most {month:.2f} USD\n"
        f"limits     {_limit(cluster.limits.per_hour)} per hour,"
        f" {_limit(cluster.limits.per_month)} per month",
        soft_wrap=True,
    )
    for reason in fleet.failures(aws, cluster.groups):
        out.print(f"not started  {reason}", soft_wrap=True)
    out.print(f"workers    {_workers(aws, name, scheduler, tls)}", soft_wrap=True)


@aws_app.command()
def scale(
    name: Name,
    cpu: Annotated[int | None, typer.Option(min=0, help="CPU machines; default: as now.")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="GPU machines; default: as now.")] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    region: Region = None,
    prices_file: PricesFile = None,
    yes: Yes = False,
) -> None:
    """Change how many machines a cluster has; tells the price first."""
    prices = read_prices(prices_file)
    aws = open_session(region, prices)
    cluster, now = find_cluster(aws, name), now_utc()
    wanted = {"cpu": cpu, "gpu": gpu}
    sizes = {kind: size if (size := wanted[kind]) is not None else cluster.sizes[kind] for kind in wanted}
    charges = price_fleet(cluster.priced(sizes), prices)
    out.print(aws_tables.price_table(charges, prices, f"cluster {name}, prices of {prices.checked}"))
    usd = total_usd_per_hour(charges)
    check_budget(aws, cluster.limits, cluster.bucket, usd, now, None)
    ask(f"make it so, at most {usd:.2f} USD per hour?", yes)
    with asking(aws, name, scheduler, tls, needed=False) as (client, demand):
        leave = leaving(aws, cluster, sizes, client, demand)
        resize(aws, cluster, sizes, usd, now, leave)
    out.print(f"machines   {sizes['cpu']} CPU and {sizes['gpu']} GPU asked for")


@aws_app.command()
def connect(
    name: Name,
    tls: Tls = None,
    region: Region = None,
) -> None:
    """Open the way to the scheduler (port 8786 here) and to its dashboard (8787); runs until Ctrl-C."""
    aws = open_session(region, None)
    cluster = find_cluster(aws, name)
    folder = certificates(aws, name, tls)
    os.environ["AWS_DEFAULT_REGION"] = aws.region
    ways = [
        tunnel.tunnel_command(tunnel.Place("127.0.0.1", port), ssm=cluster.scheduler, local_port=port)
        for port in (8786, 8787)
    ]
    out.print(
        f"scheduler  {THROUGH_TUNNEL} with --tls {folder}\n"
        "dashboard  http://127.0.0.1:8787/status\n"
        "until Ctrl-C",
        soft_wrap=True,
    )
    with ThreadPoolExecutor(len(ways)) as pool:
        codes = list(pool.map(tunnel.run_tunnel, ways))
    if any(codes):
        raise CloudError(
            "the tunnel ended",
            got=f"exit codes {codes}",
            fix="the scheduler's machine may still be starting: try again",
        )


@aws_app.command()
def bucket(
    name: Name,
    delete_command: Annotated[
        bool, typer.Option("--delete-command", help="Print the command that deletes it with all results.")
    ] = False,
    region: Region = None,
) -> None:
    """Print the URL of the cluster's bucket: the one place where lmr shows it."""
    aws = open_session(region, None)
    cluster = find(aws, name)
    found = cluster.bucket if cluster else kept_bucket(aws, name)
    if not found:
        raise CloudError(
            f"there is no bucket of a cluster {name} in {aws.region}",
            fix="`lmr cluster status` lists the clusters of a region; --region names another",
        )
    print(f"aws s3 rb --force s3://{found}" if delete_command else f"s3://{found}")


@aws_app.command("prices")
def prices_command() -> None:
    """Print the price table, to be edited and given back with --prices."""
    print(shipped("deploy/aws/prices.toml").read_text(), end="")


@aws_app.command()
def down(name: Name, region: Region = None, yes: Yes = False, poll_seconds: Poll = 5.0) -> None:
    """End a cluster, and prove that nothing billable is left but the bucket."""
    aws = open_session(region, None)
    machines = fleet.instances(aws, name)
    out.print(f"cluster {name}: {len(machines)} machines, its file system with all in it, its logs")
    ask("end them? The bucket stays.", yes)
    end_cluster(aws, name, poll_seconds)


def _workers(aws: Aws, name: str, scheduler: str | None, tls: str | None) -> str:
    try:
        with asking(aws, name, scheduler, tls, needed=False) as (_, demand):
            if demand is None:
                return f"unknown from here: `lmr cluster connect --name {name}` opens the way"
            tasks = sum(pending.tasks for pending in demand.pending)
            return f"{demand.workers} on {len(demand.slots)} machines, {tasks} tasks pending"
    except ClusterError as error:  # another cluster's scheduler, say: the machines are still worth telling
        return f"unknown: {str(error).splitlines()[0]}"


def _limit(usd: float | None) -> str:
    return "none" if usd is None else f"{usd:.2f} USD"
