"""The stack of a cluster: make it, and delete it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmr.cloud.found import Cluster, find, fleet_of, kept_bucket, stacks
from lmr.cloud.prices import Group
from lmr.cloud.session import QUOTAS, Aws, aws_errors, quota_error
from lmr.errors import CloudError
from lmr.shipped import shipped

__all__ = ["Order", "create", "delete_stack", "failure", "network", "wait"]

CPU_IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
GPU_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a new cluster shall be.

    Attributes
    ----------
    name, owner
        The tags of everything in it.
    scheduler_type, cpu_types, gpu_types
        Types of machines.
    cpu_max, gpu_max
        The largest that the groups may become.
    cpu_on_demand, gpu_on_demand
        So many machines of a group are on demand, all above on spot.
    disk_gb
        Disk of each worker machine.
    vpc, subnets
        The network; None and empty: the account's default one.
    client_cidr
        Addresses that may reach the scheduler's port; empty: none, only tunnels.
    cpu_image, gpu_image
        An AMI, or the parameter of Systems Manager that names one.
    """

    name: str
    owner: str
    scheduler_type: str
    cpu_types: tuple[str, ...]
    gpu_types: tuple[str, ...]
    cpu_max: int = 40
    gpu_max: int = 8
    cpu_on_demand: int = 1
    gpu_on_demand: int = 1
    disk_gb: int = 200
    vpc: str | None = None
    subnets: tuple[str, ...] = ()
    client_cidr: str = ""
    cpu_image: str = CPU_IMAGE
    gpu_image: str = GPU_IMAGE

    def groups(self, cpu: int, gpu: int) -> list[Group]:
        """Return what is to be priced."""
        return fleet_of(self.scheduler_type, self.cpu_types, self.gpu_types, self.disk_gb, cpu, gpu)


def network(aws: Aws, vpc: str | None, subnets: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return a network and one to three subnets in different zones; by default the account's own.

    Raises
    ------
    CloudError
        If there is none.
    """
    with aws_errors(aws.redactor):
        ec2 = aws.client("ec2")
        if vpc is None and not subnets:
            found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not found:
                raise CloudError(
                    f"this account has no default network in {aws.region}",
                    fix="--subnets names one to three subnets, each in another zone",
                )
            filters = [
                {"Name": "vpc-id", "Values": [found[0]["VpcId"]]},
                {"Name": "default-for-az", "Values": ["true"]},
            ]
            rows = ec2.describe_subnets(Filters=filters)["Subnets"]
        else:
            filters = [{"Name": "vpc-id", "Values": [vpc]}] if vpc else []
            ids = {"SubnetIds": list(subnets)} if subnets else {}
            rows = ec2.describe_subnets(Filters=filters, **ids)["Subnets"]
    by_zone = {row["AvailabilityZone"]: row for row in reversed(rows)}
    chosen = [by_zone[zone] for zone in sorted(by_zone)][:3]
    vpcs = {row["VpcId"] for row in chosen}
    if len(vpcs) != 1 or (subnets and len(chosen) != len(subnets)):
        raise CloudError(
            "these subnets cannot carry a cluster",
            got=f"{len(rows)} subnets in {len(by_zone)} zones of {len(vpcs)} networks",
            fix="--subnets: one to three of one network, each in another zone",
        )
    return vpcs.pop(), tuple(row["SubnetId"] for row in chosen)


def create(aws: Aws, order: Order, bundle: str, *, gpu: bool) -> None:
    """Have AWS begin to make the stack of a cluster, with empty groups.

    Parameters
    ----------
    aws
        The session.
    order
        What it shall be.
    bundle
        Digest of the code that its machines run.
    gpu
        Whether it must have a group of GPU machines. It has one anyway where AWS names an image for them.

    Raises
    ------
    CloudError
        If AWS refuses, or names no machine image.
    """
    cpu_image = _image(aws, order.cpu_image, "--cpu-image", needed=True)
    gpu_image = _image(aws, order.gpu_image, "--gpu-image", needed=gpu)
    vpc, subnets = network(aws, order.vpc, order.subnets)
    parameters = {
        "ClusterName": order.name,
        "Owner": order.owner,
        "VpcId": vpc,
        "SubnetIds": ",".join(subnets),
        "SubnetCount": len(subnets),
        "ClientCidr": order.client_cidr,
        "ExistingBucket": kept_bucket(aws, order.name),
        "Bundle": bundle,
        "ImageId": cpu_image,
        # The template asks for an image in any case; without GPU machines nothing is started from it.
        "GpuImageId": gpu_image or cpu_image,
        "GpuMachines": "yes" if gpu_image else "no",
        "SchedulerType": order.scheduler_type,
        "CpuTypes": ",".join(_exactly(order.cpu_types, 3, "--cpu-types")),
        "GpuTypes": ",".join(_exactly(order.gpu_types, 2, "--gpu-types")),
        "CpuMax": order.cpu_max,
        "GpuMax": order.gpu_max,
        "CpuOnDemandBase": order.cpu_on_demand,
        "GpuOnDemandBase": order.gpu_on_demand,
        "DiskGb": order.disk_gb,
    }
    with aws_errors(aws.redactor):
        aws.client("cloudformation").create_stack(
            StackName=_stack(order.name),
            TemplateBody=shipped("deploy/aws/stack.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": str(v)} for k, v in parameters.items()],
            Tags=[{"Key": "lmr:cluster", "Value": order.name}, {"Key": "lmr:owner", "Value": order.owner}],
            OnFailure="DELETE",
        )


def _exactly(types: tuple[str, ...], count: int, option: str) -> list[str]:
    # The template has a fixed number of places; a type may stand in several.
    if not 1 <= len(types) <= count:
        raise CloudError(
            f"{option} takes one to {count} types",
            got=",".join(types) or "none",
            fix="name types with commas between; `lmr cluster prices` lists those that have a price",
        )
    return [types[min(i, len(types) - 1)] for i in range(count)]


def _image(aws: Aws, image: str, option: str, *, needed: bool) -> str:
    """Return an AMI by its id or the parameter that names it; an empty text where there need be none."""
    if image.startswith("ami-"):
        return image
    from botocore.exceptions import ClientError

    try:
        answer = aws.client("ssm").get_parameter(Name=image)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            with aws_errors(aws.redactor):
                raise
        if not needed:
            return ""
        raise CloudError(
            f"{aws.region} names no machine image {image}", fix=f"{option}: an ami-… of that region"
        ) from error
    value: str = answer["Parameter"]["Value"]
    return value


def _stack(name: str) -> str:
    return f"lmr-{name}"


def wait(
    aws: Aws, name: str, *, progress: Callable[[str], None] = lambda _: None, poll_seconds: float = 5.0
) -> Cluster:
    """Wait until the stack of a cluster is there.

    Raises
    ------
    CloudError
        If AWS could not make it; what it had made is removed again.
    """
    while True:
        cluster = find(aws, name)
        if cluster is not None and cluster.status == "CREATE_COMPLETE":
            return cluster
        failed = failure(aws, _stack(name))
        if failed is not None:
            raise failed
        if cluster is None:
            raise CloudError(f"the stack of the cluster {name} is gone", fix="see CloudFormation's console")
        progress(cluster.status.lower().replace("_", " "))
        time.sleep(poll_seconds)


def failure(aws: Aws, stack: str) -> CloudError | None:
    """Return the first reason why a stack could not be made, in words for its user."""
    with aws_errors(aws.redactor):
        events = aws.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
    failed = [e for e in events if e["ResourceStatus"].endswith("_FAILED")]
    if not failed:
        return None
    first = min(failed, key=lambda event: event["Timestamp"])
    reason = aws.redactor(first.get("ResourceStatusReason", "no reason given"))
    if any(code in reason for code in QUOTAS):
        return quota_error(reason)
    return CloudError(
        f"AWS could not make {first['LogicalResourceId']} ({first['ResourceType']})",
        got=reason,
        fix="mend that and run the same command again; what had been made is being removed",
    )


def delete_stack(
    aws: Aws, stack: str, *, progress: Callable[[str], None] = lambda _: None, poll_seconds: float = 5.0
) -> None:
    """Delete a stack and wait until it is gone.

    Raises
    ------
    CloudError
        If AWS cannot delete something.
    """
    with aws_errors(aws.redactor):
        aws.client("cloudformation").delete_stack(StackName=stack)
    while True:
        left = [s for s in stacks(aws) if s["StackName"] == stack]
        if not left:
            return
        if left[0]["StackStatus"] == "DELETE_FAILED":
            raise CloudError(
                f"AWS could not delete all of the stack {stack}",
                got=aws.redactor(left[0].get("StackStatusReason", "no reason given")),
                fix="delete what it names in AWS's console, then `lmr cluster down` again",
            )
        progress(left[0]["StackStatus"].lower().replace("_", " "))
        time.sleep(poll_seconds)
