"""The machines of a cluster: what is there, and changing how many. Found by tags alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lmr.cloud.found import ScalingGroup
from lmr.cloud.prices import Prices
from lmr.cloud.session import Aws, aws_errors
from lmr.errors import CloudError

__all__ = ["Instance", "failures", "instances", "resize", "running_usd", "stop_at", "terminate"]

ALIVE = ("pending", "running", "shutting-down", "stopping", "stopped")


@dataclass(frozen=True)
class Instance:
    """A machine of a cluster."""

    id: str
    group: str
    type: str
    state: str
    since: datetime
    spot: bool
    private_ip: str


def instances(aws: Aws, cluster: str) -> list[Instance]:
    """List a cluster's machines that are not gone, by their tag."""
    filters = [
        {"Name": "tag:lmr:cluster", "Values": [cluster]},
        {"Name": "instance-state-name", "Values": list(ALIVE)},
    ]
    found = []
    for reservation in aws.pages("ec2", "describe_instances", "Reservations", Filters=filters):
        for one in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}
            found.append(
                Instance(
                    id=one["InstanceId"],
                    group=tags.get("lmr:group", "other"),
                    type=one["InstanceType"],
                    state=one["State"]["Name"],
                    since=one["LaunchTime"],
                    spot=one.get("InstanceLifecycle") == "spot",
                    private_ip=one.get("PrivateIpAddress", ""),
                )
            )
    return sorted(found, key=lambda one: (one.group != "scheduler", one.group, one.since, one.id))


def running_usd(found: Iterable[Instance], prices: Prices, now: datetime) -> float:
    """USD that the machines that run now have cost since they were started, at on-demand prices."""
    return sum(
        prices.machine(one.type).usd_per_hour * max((now - one.since).total_seconds(), 0) / 3600
        for one in found
        if one.type in prices.machines
    )


def resize(
    aws: Aws, groups: Mapping[str, ScalingGroup], sizes: Mapping[str, int], leave_first: Sequence[str] = ()
) -> None:
    """Set how many machines the groups have.

    Parameters
    ----------
    aws
        The session.
    groups
        The Auto Scaling groups' names and states, by kind, as `cluster.find` returns them.
    sizes
        Wanted sizes, by kind.
    leave_first
        Machines to end where a group shrinks, in this order, and not those of AWS's choice: their workers
        have been retired.

    Raises
    ------
    CloudError
        If a group may not be so large, or is not there.
    """
    for kind, size in sizes.items():
        if kind not in groups and size:
            raise CloudError(
                f"this cluster has no group of {kind.upper()} machines",
                got="no machine image for them when it was started",
                fix=f"`lmr cluster down`, then `up` with --{kind}-image ami-…; results stay in the bucket",
            )
        if kind in groups and size > groups[kind].largest:
            raise CloudError(
                f"the {kind} group cannot have so many machines",
                got=f"{size}, at most {groups[kind].largest}",
                fix=f"`lmr cluster down`, then `up` with a larger --{kind}-max; results stay in the bucket",
            )
    client = aws.client("autoscaling")
    with aws_errors(aws.redactor):
        for kind, group in groups.items():
            size = sizes.get(kind, group.desired)
            surplus = [one for one in leave_first if one in group.members][: max(group.desired - size, 0)]
            for one in surplus:
                client.terminate_instance_in_auto_scaling_group(
                    InstanceId=one, ShouldDecrementDesiredCapacity=True
                )
            if group.desired - len(surplus) != size:
                client.set_desired_capacity(AutoScalingGroupName=group.name, DesiredCapacity=size)


def stop_at(aws: Aws, groups: Mapping[str, ScalingGroup], when: datetime) -> None:
    """Have AWS empty the groups at a time, whether this machine is on then or not."""
    with aws_errors(aws.redactor):
        for kind, group in groups.items():
            aws.client("autoscaling").put_scheduled_update_group_action(
                AutoScalingGroupName=group.name,
                ScheduledActionName=f"lmr-stop-{kind}",
                StartTime=when,
                MinSize=0,
                DesiredCapacity=0,
            )


def failures(aws: Aws, groups: Mapping[str, ScalingGroup], most: int = 3) -> list[str]:
    """Return why AWS lately could not start machines: a quota, no capacity."""
    found = []
    with aws_errors(aws.redactor):
        for kind, group in groups.items():
            answer = aws.client("autoscaling").describe_scaling_activities(
                AutoScalingGroupName=group.name, MaxRecords=20
            )
            failed = [a for a in answer["Activities"] if a.get("StatusCode") in ("Failed", "Cancelled")]
            found += [f"{kind}: {aws.redactor(a.get('StatusMessage', 'failed'))}" for a in failed[:most]]
    return found


def terminate(aws: Aws, ids: Sequence[str]) -> None:
    """End machines."""
    if ids:
        with aws_errors(aws.redactor):
            aws.client("ec2").terminate_instances(InstanceIds=list(ids))
