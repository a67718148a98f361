"""What of a cluster is still there and billed, found by its tag: the proof that `lmr cluster down` gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lmr.cloud.session import Aws, aws_errors

__all__ = ["Leftover", "leftovers"]

ALIVE = ["pending", "running", "stopping", "stopped"]


@dataclass(frozen=True)
class Leftover:
    """Something that is still there.

    Attributes
    ----------
    kind
        What it is.
    name
        Its id; empty for a bucket, whose name is not to be shown.
    fix
        The command that ends it.
    """

    kind: str
    name: str
    fix: str


def leftovers(aws: Aws, cluster: str) -> list[Leftover]:
    """List what bears a cluster's tag and is billed, service by service, then whatever else has the tag.

    Each service is asked itself: AWS's list of tagged things names terminated machines for hours.
    """
    found = [left for look in LOOKS for left in look(aws, cluster)]
    with aws_errors(aws.redactor):
        return found + list(_others(aws, cluster))


def _tag_filter(cluster: str) -> list[dict[str, Any]]:
    return [{"Name": "tag:lmr:cluster", "Values": [cluster]}]


def _tagged(tags: list[dict[str, str]], cluster: str) -> bool:
    return any(tag["Key"] == "lmr:cluster" and tag["Value"] == cluster for tag in tags)


def _stacks(aws: Aws, cluster: str) -> Iterator[Leftover]:
    for stack in aws.pages("cloudformation", "describe_stacks", "Stacks"):
        if _tagged(stack.get("Tags", []), cluster) and stack["StackStatus"] != "DELETE_COMPLETE":
            name = stack["StackName"]
            yield Leftover("stack", name, f"aws cloudformation delete-stack --stack-name {name}")


def _machines(aws: Aws, cluster: str) -> Iterator[Leftover]:
    filters = [*_tag_filter(cluster), {"Name": "instance-state-name", "Values": ALIVE}]
    for reservation in aws.pages("ec2", "describe_instances", "Reservations", Filters=filters):
        for one in reservation["Instances"]:
            id_ = one["InstanceId"]
            yield Leftover("machine", id_, f"aws ec2 terminate-instances --instance-ids {id_}")


def _groups(aws: Aws, cluster: str) -> Iterator[Leftover]:
    for group in aws.pages(
        "autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", Filters=_tag_filter(cluster)
    ):
        name = group["AutoScalingGroupName"]
        fix = f"aws autoscaling delete-auto-scaling-group --force-delete --auto-scaling-group-name {name}"
        yield Leftover("group", name, fix)


def _disks(aws: Aws, cluster: str) -> Iterator[Leftover]:
    for disk in aws.pages("ec2", "describe_volumes", "Volumes", Filters=_tag_filter(cluster)):
        if disk["State"] not in ("deleting", "deleted"):
            id_ = disk["VolumeId"]
            yield Leftover("disk", id_, f"aws ec2 delete-volume --volume-id {id_}")


def _file_systems(aws: Aws, cluster: str) -> Iterator[Leftover]:
    for system in aws.pages("efs", "describe_file_systems", "FileSystems"):
        gone = system["LifeCycleState"] in ("deleting", "deleted")
        if _tagged(system.get("Tags", []), cluster) and not gone:
            id_ = system["FileSystemId"]
            yield Leftover("file system", id_, f"aws efs delete-file-system --file-system-id {id_}")


def _logs(aws: Aws, cluster: str) -> Iterator[Leftover]:
    for group in aws.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=f"/lmr/{cluster}"):
        name = group["logGroupName"]
        if name == f"/lmr/{cluster}":
            yield Leftover("log group", name, f"aws logs delete-log-group --log-group-name {name}")


LOOKS: tuple[Callable[[Aws, str], Iterator[Leftover]], ...] = (
    _stacks,
    _machines,
    _groups,
    _disks,
    _file_systems,
    _logs,
)
ASKED = (
    "cloudformation",
    "ec2:instance",
    "ec2:volume",
    "autoscaling",
    "elasticfilesystem",
    "logs",
    # These cost nothing, and AWS's list may name them for a while after they are gone.
    "ec2:security-group",
    "ec2:launch-template",
    "iam",
    "ssm",
)


def _others(aws: Aws, cluster: str) -> Iterator[Leftover]:
    """Whatever else bears the tag: nothing that `lmr` makes but the bucket, so it is worth a look."""
    for row in aws.pages(
        "resourcegroupstaggingapi",
        "get_resources",
        "ResourceTagMappingList",
        TagFilters=[{"Key": "lmr:cluster", "Values": [cluster]}],
    ):
        service, name = row["ResourceARN"].split(":", 2)[2].split(":", 1)
        kind = name.rsplit(":", 1)[-1].partition("/")[0]
        if service == "s3":
            bucket = name.rpartition(":")[2]
            aws.redactor.hide(bucket, "BUCKET")
            yield Leftover("bucket", "", f"lmr cluster bucket --name {cluster} --delete-command")
        elif service not in ASKED and f"{service}:{kind}" not in ASKED:
            yield Leftover(service, name.rpartition("/")[2], "delete it in AWS's console")
