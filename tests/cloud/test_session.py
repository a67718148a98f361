"""Whoever lacks something is told what, and what to do. Every error here is raised by boto3 itself."""

import logging
import sys
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from lmr.cloud import fleet, stack
from lmr.cloud.found import ScalingGroup
from lmr.cloud.redact import Redactor
from lmr.cloud.session import Aws, aws_errors, open_aws
from lmr.errors import CloudError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path, aws_interfaces):
    """A machine that AWS knows nothing of: no variables, no files, no role."""
    for name in (
        "ACCESS_KEY_ID",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "PROFILE",
        "REGION",
        "DEFAULT_REGION",
    ):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    before = logging.getLogRecordFactory()
    yield tmp_path
    logging.setLogRecordFactory(before)


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY")


def told(call):
    with pytest.raises(CloudError) as caught:
        call()
    error = caught.value
    assert error.got
    assert error.fix
    return error


def test_without_boto3(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert told(lambda: open_aws(Redactor())).fix == 'pip install "lmr[aws]"'


def test_without_credentials():
    error = told(lambda: open_aws(Redactor(), region="us-east-1"))
    assert error.what == "AWS is asked by nobody: there are no credentials"
    assert "aws configure" in error.fix


def test_with_half_of_them(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    error = told(lambda: open_aws(Redactor(), region="us-east-1"))
    assert error.what == "AWS got no usable credentials"
    assert "AWS_SECRET_ACCESS_KEY" in error.got


def test_without_region(known):
    error = told(lambda: open_aws(Redactor()))
    assert error.what == "no region of AWS was chosen"
    assert "--region" in error.fix


def test_without_that_profile(known):
    error = told(lambda: open_aws(Redactor(), region="us-east-1", profile="work"))
    assert "work" in error.got
    assert "list-profiles" in error.fix


def test_without_network(known, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    aws = open_aws(Redactor(), region="us-east-1")
    assert told(lambda: fleet.instances(aws, "push")).what == "AWS cannot be reached"


def refused(code, message="no"):
    """Let a client raise what AWS's answer of this code makes it raise."""
    client = boto3.client("ec2", region_name="us-east-1")
    redactor = Redactor()
    with Stubber(client) as stub:
        stub.add_client_error("describe_instances", code, message)
        return told(lambda: _within(redactor, client.describe_instances))


def _within(redactor, call):
    with aws_errors(redactor):
        call()


@pytest.mark.parametrize(
    ("code", "what", "fix"),
    [
        ("ExpiredToken", "the session with AWS has expired", "aws sso login"),
        ("AuthFailure", "AWS does not know these credentials", "aws sts get-caller-identity"),
        ("UnauthorizedOperation", "these credentials may not do DescribeInstances", "docs/guides/aws.md"),
        ("VcpuLimitExceeded", "the account's quota does not allow so many machines", "Service Quotas"),
        ("MaxSpotInstanceCountExceeded", "the account's quota does not allow so many machines", "spot"),
        ("InsufficientInstanceCapacity", "AWS has no such machine left just now", "--cpu-types"),
        ("Throttling", "AWS is asked too often just now", "in a minute"),
        ("SomethingNew", "AWS refused", "docs/guides/aws.md"),
    ],
)
def test_by_what_aws_answers(known, code, what, fix):
    error = refused(code)
    assert error.what == what
    assert fix in error.fix


def test_answers_are_shown_without_accounts(known):
    error = refused("AccessDenied", "User: arn:aws:iam::123456789012:user/me may not read s3://my-photos")
    assert "arn:aws:iam::ACCOUNT:user/me" in error.got
    assert "s3://BUCKET" in error.got


def stubbed(service):
    aws = Aws(boto3.Session(region_name="us-east-1"), Redactor())
    client = boto3.client(service, region_name="us-east-1")
    aws.client = {service: client}.__getitem__
    return aws, Stubber(client)


def event(name, status, reason, minutes):
    return {
        "StackId": "s",
        "EventId": name,
        "StackName": "lmr-push",
        "LogicalResourceId": name,
        "ResourceType": "AWS::EC2::Instance",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "Timestamp": NOW + timedelta(minutes=minutes),
    }


def test_a_quota_that_stops_the_stack_is_named_and_not_what_it_broke(known):
    aws, stub = stubbed("cloudformation")
    quota = "You have requested more vCPU capacity than allowed (VcpuLimitExceeded) for 123456789012"
    events = [
        event("CpuGroup", "CREATE_FAILED", "Resource creation cancelled", 3),
        event("Scheduler", "CREATE_FAILED", quota, 2),
        event("Bucket", "CREATE_COMPLETE", "", 1),
    ]
    with stub:
        stub.add_response("describe_stack_events", {"StackEvents": events}, {"StackName": "lmr-push"})
        stub.add_response("describe_stack_events", {"StackEvents": events[2:]}, {"StackName": "lmr-push"})
        stub.add_response(
            "describe_stack_events",
            {"StackEvents": [event("Mount1", "CREATE_FAILED", "no such subnet", 1)]},
            {"StackName": "lmr-push"},
        )
        error = stack.failure(aws, "lmr-push")
        assert "quota" in error.what
        assert "ACCOUNT" in error.got
        assert stack.failure(aws, "lmr-push") is None
        assert "could not make Mount1" in stack.failure(aws, "lmr-push").what


def test_machines_that_did_not_start_are_told(known):
    aws, stub = stubbed("autoscaling")
    activity = {
        "ActivityId": "a",
        "AutoScalingGroupName": "g",
        "Cause": "c",
        "StartTime": NOW,
        "StatusCode": "Failed",
        "StatusMessage": "Could not launch Spot Instances. MaxSpotInstanceCountExceeded for 123456789012",
    }
    with stub:
        stub.add_response("describe_scaling_activities", {"Activities": [activity]})
        stub.add_response("describe_scaling_activities", {"Activities": []})
        groups = {kind: ScalingGroup(kind, 1, 2, ()) for kind in ("cpu", "gpu")}
        (reason,) = fleet.failures(aws, groups)
    assert reason.startswith("cpu: Could not launch Spot Instances. MaxSpot")
    assert "ACCOUNT" in reason


def test_networks(known):
    """The account's own network, or subnets that can carry a cluster."""
    aws, stub = stubbed("ec2")

    def subnets(*zones, vpc="v"):
        return {
            "Subnets": [
                {"SubnetId": f"s{i}", "VpcId": vpc, "AvailabilityZone": zone} for i, zone in enumerate(zones)
            ]
        }

    with stub:
        stub.add_response("describe_vpcs", {"Vpcs": [{"VpcId": "v"}]})
        stub.add_response("describe_subnets", subnets("d", "a", "b", "c"))
        assert stack.network(aws, None, ()) == ("v", ("s1", "s2", "s3"))
        stub.add_response("describe_subnets", subnets("a", "a"))
        assert "in 1 zones" in told(lambda: stack.network(aws, None, ("s0", "s1"))).got
        stub.add_response("describe_vpcs", {"Vpcs": []})
        with pytest.raises(CloudError, match="no default network in us-east-1"):
            stack.network(aws, None, ())


def test_stubs_raise_what_boto3_raises(known):
    # The tests above mean something only while their errors are botocore's own.
    client = boto3.client("ec2", region_name="us-east-1")
    with Stubber(client) as stub:
        stub.add_client_error("describe_instances", "VcpuLimitExceeded")
        with pytest.raises(ClientError):
            client.describe_instances()
