"""A cluster as it is: found by the tags of its stack, never by anything kept on this machine."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lmr.cloud.prices import Group, Limits
from lmr.cloud.session import Aws, aws_errors
from lmr.errors import CloudError

__all__ = ["Cluster", "ScalingGroup", "find", "fleet_of", "kept_bucket", "names", "set_limits", "stacks"]

SCHEDULER_DISK_GB = 30
"""As in deploy/aws/stack.yaml."""


@dataclass(frozen=True)
class ScalingGroup:
    """An Auto Scaling group as it is now."""

    name: str
    desired: int
    largest: int
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that is there.

    Attributes
    ----------
    name, owner
        Its tags.
    stack
        Name of its stack.
    status
        The stack's, in CloudFormation's words.
    bucket
        Name of its bucket: to be used, never printed.
    scheduler
        The instance that the scheduler runs on.
    address
        The scheduler's address inside the network.
    groups
        Its Auto Scaling groups, by kind; one without an image for GPU machines has no `gpu`.
    types
        Of machines that a group may get, by kind.
    parameters
        Of its stack.
    limits
        What it may cost.
    """

    name: str
    owner: str
    stack: str
    status: str
    bucket: str
    scheduler: str
    address: str
    groups: Mapping[str, ScalingGroup]
    types: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, str]
    limits: Limits

    def priced(self, sizes: Mapping[str, int]) -> list[Group]:
        """Return what is to be priced, with the groups of these sizes."""
        p = self.parameters
        return fleet_of(
            p["SchedulerType"],
            self.types["cpu"],
            self.types["gpu"],
            int(p["DiskGb"]),
            sizes["cpu"],
            sizes["gpu"],
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What the groups are asked to be now."""
        return {kind: group.desired if (group := self.groups.get(kind)) else 0 for kind in ("cpu", "gpu")}


def fleet_of(
    scheduler: str, cpu_types: tuple[str, ...], gpu_types: tuple[str, ...], disk_gb: int, cpu: int, gpu: int
) -> list[Group]:
    """Return the parts of a fleet, to be priced."""
    return [
        Group(name="scheduler", types=(scheduler,), count=1, disk_gb=SCHEDULER_DISK_GB),
        Group(name="cpu", types=cpu_types, count=cpu, disk_gb=disk_gb),
        Group(name="gpu", types=gpu_types, count=gpu, disk_gb=disk_gb),
    ]


def names(aws: Aws) -> list[str]:
    """Return the names of the clusters in this region."""
    return sorted(_tags(stack)["lmr:cluster"] for stack in stacks(aws))


def find(aws: Aws, name: str) -> Cluster | None:
    """Find a cluster by its tag; None if there is none.

    Raises
    ------
    CloudError
        If AWS refuses.
    """
    stack = next((s for s in stacks(aws) if _tags(s)["lmr:cluster"] == name), None)
    if stack is None:
        return None
    outputs = {o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", ())}
    tags = _tags(stack)
    bucket = outputs.get("BucketName", "")
    aws.redactor.hide(bucket, "BUCKET")
    return Cluster(
        name=name,
        owner=tags.get("lmr:owner", ""),
        stack=stack["StackName"],
        status=stack["StackStatus"],
        bucket=bucket,
        scheduler=outputs.get("SchedulerInstance", ""),
        address=outputs.get("SchedulerAddress", ""),
        groups=_scaling_groups(aws, outputs),
        types={
            kind: tuple(outputs.get(key, "").split(","))
            for kind, key in (("cpu", "CpuTypes"), ("gpu", "GpuTypes"))
        },
        parameters={p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]},
        limits=_limits(aws, name),
    )


def stacks(aws: Aws) -> Iterator[Any]:
    """Yield the stacks of clusters in this region, as CloudFormation describes them."""
    for stack in aws.pages("cloudformation", "describe_stacks", "Stacks"):
        if "lmr:cluster" in _tags(stack) and stack["StackStatus"] != "DELETE_COMPLETE":
            yield stack


def _limits(aws: Aws, name: str) -> Limits:
    from botocore.exceptions import ClientError

    try:
        answer = aws.client("ssm").get_parameter(Name=f"/lmr/{name}/limits")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ParameterNotFound":
            return Limits()
        with aws_errors(aws.redactor):
            raise
    return Limits(**json.loads(answer["Parameter"]["Value"]))


def set_limits(aws: Aws, name: str, limits: Limits) -> None:
    """Keep what a cluster may cost where every machine that scales it finds it."""
    with aws_errors(aws.redactor):
        aws.client("ssm").put_parameter(
            Name=f"/lmr/{name}/limits", Value=json.dumps(asdict(limits)), Type="String", Overwrite=True
        )


def _tags(stack: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in stack.get("Tags", ())}


def _scaling_groups(aws: Aws, outputs: Mapping[str, str]) -> dict[str, ScalingGroup]:
    wanted = {
        outputs[key]: kind for key, kind in (("CpuGroup", "cpu"), ("GpuGroup", "gpu")) if key in outputs
    }
    groups = {}
    if wanted:
        for group in aws.pages(
            "autoscaling",
            "describe_auto_scaling_groups",
            "AutoScalingGroups",
            AutoScalingGroupNames=list(wanted),
        ):
            name = group["AutoScalingGroupName"]
            groups[wanted[name]] = ScalingGroup(
                name=name,
                desired=group["DesiredCapacity"],
                largest=group["MaxSize"],
                members=tuple(one["InstanceId"] for one in group["Instances"]),
            )
    return groups


def kept_bucket(aws: Aws, name: str) -> str:
    """Return the bucket that an earlier cluster of this name left, or an empty text."""
    with aws_errors(aws.redactor):
        answer = aws.client("resourcegroupstaggingapi").get_resources(
            TagFilters=[{"Key": "lmr:cluster", "Values": [name]}], ResourceTypeFilters=["s3"]
        )
    found = [row["ResourceARN"].rpartition(":::")[2] for row in answer["ResourceTagMappingList"]]
    for bucket in found:
        aws.redactor.hide(bucket, "BUCKET")
    if len(found) > 1:
        raise CloudError(
            f"there are {len(found)} buckets of clusters called {name}",
            fix="another --name, or take the tag lmr:cluster off those that are not wanted",
        )
    return found[0] if found else ""
