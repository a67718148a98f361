"""`lmr cluster` as a user types it, and what AWS (moto's server) then has."""

import boto3
from typer.testing import CliRunner

from lmr.cli.main import app

__all__ = ["IMAGE", "bucket_of", "cluster", "running", "up"]

IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


def cluster(*arguments, stdin=None):
    """Run `lmr cluster …`; return what it printed, or raise what it raised."""
    result = CliRunner().invoke(app, ["cluster", *map(str, arguments)], input=stdin)
    if isinstance(result.exception, Exception):
        result.exception.printed = result.output
        raise result.exception
    return result.output


def up(*arguments, name="push", stdin=None):
    return cluster("up", "--name", name, "--gpu-image", IMAGE, "--poll-seconds", 0.1, *arguments, stdin=stdin)


def bucket_of(name="push"):
    return cluster("bucket", "--name", name).strip()


def running():
    pages = boto3.client("ec2").describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )
    return [i for r in pages["Reservations"] for i in r["Instances"]]
