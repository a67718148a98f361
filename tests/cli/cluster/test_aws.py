"""`lmr cluster` on AWS as a user types it, against moto's server: a real HTTP server that plays AWS.

Moto proves calls and wiring. What it cannot prove (that machines start, that spot is spot) is listed in
docs/results/places.md.
"""

import base64
import io
import logging
import os
import re
import zipfile
from datetime import UTC, datetime

import boto3
import pytest

from lmr.cloud import bundle, stack
from lmr.cloud.prices import Rate
from lmr.cluster.certificates import make_certificates
from lmr.errors import CloudError, ClusterError
from tests.support import servers
from tests.support.command_line import bucket_of, cluster, running, up


def shown_usd(text, line):
    return float(re.search(rf"{line}.*?at most ([\d.]+) USD", text)[1])


def test_what_is_too_dear_is_refused_before_aws_is_asked(home, monkeypatch):
    # No server, no credentials: only the price table is read.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CloudError, match=r"limit per hour.*\n.*49\.85 USD per hour, limit 40\.00") as caught:
        up("--cpu", 10, "--gpu", 2, "--limit-per-hour", 40, "--yes")
    assert "all, at most" in caught.value.printed
    with pytest.raises(CloudError, match=r"no p5\.48xlarge"):
        up("--gpu-types", "p5.48xlarge", "--gpu", 1, "--yes")


def test_another_clusters_scheduler_is_no_reason_to_hide_the_machines(home, moto_aws, tmp_path):
    up("--cpu", 1, "--limit-per-hour", 60, "--yes")
    make_certificates(tmp_path / "others")
    with servers.scheduler(tmp_path, tmp_path / "others") as address:
        shown = cluster("status", "--name", "push", "--scheduler", address)
    assert "asked for  1 CPU" in shown
    assert f"workers    unknown: the scheduler at {address} shows a certificate of another authority" in shown


def test_life(home, moto_aws, monkeypatch):
    first = up("--cpu", 2, "--gpu", 1, "--limit-per-hour", 60, "--owner", "team", "--yes")
    assert "all, at most" in first
    assert len(running()) == 4
    bucket = bucket_of()

    # The machines find code, scripts and certificates where their user data looks for them.
    s3 = boto3.client("s3")
    package = bundle.own_bundle()
    assert keys(bucket) == {f"cluster/{package.digest}/{name}" for name in [*package.files, "SHA256SUMS"]}
    assert f"BUNDLE={package.digest}" in user_data(running()[0])
    (wheel,) = [key for key in keys(bucket) if key.endswith(".whl")]
    body = s3.get_object(Bucket=bucket[5:], Key=wheel)["Body"].read()
    assert "lmr/cloud/stack.py" in zipfile.ZipFile(io.BytesIO(body)).namelist()
    parameters = boto3.client("ssm").get_parameters_by_path(Path="/lmr/push", Recursive=True)["Parameters"]
    names = {p["Name"] for p in parameters if p["Type"] == "SecureString"}
    assert names == {
        f"/lmr/push/{role}/{file}"
        for role in ("scheduler", "worker", "client")
        for file in ("ca.pem", f"{role}.pem", f"{role}.key")
    }

    # Everything that runs is tagged, and found by the tag.
    for machine in running():
        tags = {t["Key"]: t["Value"] for t in machine["Tags"]}
        assert (tags["lmr:cluster"], tags["lmr:owner"]) == ("push", "team")
    shown = cluster("status", "--name", "push")
    assert [shown.count(f"│ {group} ") for group in ("scheduler", "cpu", "gpu")] == [1, 2, 1]
    assert "asked for  2 CPU and 1 GPU machines, at most 11.12 USD per hour" in shown
    assert "limits     60.00 USD per hour, none per month" in shown
    assert "workers    unknown from here: `lmr cluster connect --name push` opens the way" in shown
    assert cluster("status") == "push\n"

    assert "at most 49.85 USD per hour" not in cluster("scale", "--name", "push", "--gpu", 2, "--yes")
    cluster("scale", "--name", "push", "--cpu", 10, "--yes")
    assert len(running()) == 13
    with pytest.raises(CloudError, match=r"96\.20 USD per hour, limit 60\.00"):
        cluster("scale", "--name", "push", "--cpu", 20, "--yes")
    up("--cpu", 0, "--limit-per-hour", 1000, "--yes")
    with pytest.raises(CloudError, match=r"41, at most 40"):
        cluster("scale", "--name", "push", "--cpu", 41, "--yes")
    assert "limits     1000.00 USD per hour" in cluster("status", "--name", "push")
    assert len(running()) == 1

    # On another laptop: no state, and still all of it is found, the client's certificate too.
    for file in (home / ".lmr" / "push").iterdir():
        file.unlink()
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(ClusterError, match="the tunnel needs aws"):
        cluster("connect", "--name", "push")
    assert {f.name for f in (home / ".lmr" / "push").iterdir()} == {"ca.pem", "client.pem", "client.key"}
    assert (home / ".lmr" / "push" / "client.key").stat().st_mode & 0o77 == 0

    last = cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    assert "nothing billable is left of the cluster push in us-east-1 but its bucket" in last
    assert running() == []
    assert boto3.client("ssm").get_parameters_by_path(Path="/lmr", Recursive=True)["Parameters"] == []
    assert boto3.client("efs").describe_file_systems()["FileSystems"] == []
    assert bucket_of() == bucket
    assert keys(bucket) == set()
    assert cluster("bucket", "--name", "push", "--delete-command") == f"aws s3 rb --force {bucket}\n"
    assert "there is no cluster" in cluster("status")

    # A second cluster of this name goes on with the bucket, and with what the month has cost.
    spent = shown_usd(last, "cost")
    assert spent > 0
    with pytest.raises(CloudError, match=r"limit per month.*\n.*USD spent \+"):
        up("--cpu", 1, "--limit-per-month", 1, "--yes")
    assert "emptied at" in up("--cpu", 1, "--limit-per-month", 60, "--hours", 10, "--yes")
    assert bucket_of() == bucket
    actions = boto3.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    assert [(a["DesiredCapacity"], a["MinSize"]) for a in actions] == [(0, 0), (0, 0)]
    assert shown_usd(cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1), "cost") >= spent


def keys(bucket):
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket[5:], Prefix="cluster/")
    return {row["Key"] for row in listed.get("Contents", ())}


def user_data(machine):
    answer = boto3.client("ec2").describe_instance_attribute(
        InstanceId=machine["InstanceId"], Attribute="userData"
    )
    return base64.b64decode(answer["UserData"]["Value"]).decode()


def test_a_cluster_runs_the_code_that_it_was_started_with(home, moto_aws, monkeypatch):
    up("--yes")
    bucket, old = bucket_of(), bundle.own_bundle()
    new = bundle.Bundle({**old.files, "node.sh": b"changed"})
    monkeypatch.setattr(bundle, "own_bundle", lambda: new)
    with pytest.raises(
        CloudError, match=f"another code.*\ngot: {old.digest[:12]} there, {new.digest[:12]} here"
    ):
        up("--cpu", 1, "--yes")
    # Both ways that the message names.
    cluster("scale", "--name", "push", "--cpu", 1, "--yes")
    assert len(running()) == 2
    cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    up("--yes")
    assert bucket_of() == bucket
    (machine,) = running()
    assert f"BUNDLE={new.digest}" in user_data(machine)
    assert {key.split("/")[1] for key in keys(bucket)} == {new.digest}


def test_certificates_of_another_cluster_are_not_overwritten(home, moto_aws, monkeypatch, tmp_path):
    lab = tmp_path / "lab"
    make_certificates(lab)
    before = {path.name: path.read_bytes() for path in lab.iterdir()}
    monkeypatch.setenv("LMR_TLS", str(lab))
    with pytest.raises(CloudError, match=f"certificates in {lab} may be another cluster's"):
        up("--yes")
    # One remedy of the message, then the other.
    assert f"--tls {home / '.lmr' / 'push'}" in up("--yes", "--tls", "")
    cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    assert f"--tls {tmp_path / 'new'}" in up("--yes", "--tls", tmp_path / "new")
    # Nor when a client fetches its own: a worker's folder has no client.pem.
    (lab / "client.pem").unlink()
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(CloudError, match="may be another cluster's"):
        cluster("connect", "--name", "push")
    assert {path.name: path.read_bytes() for path in lab.iterdir()} == {
        name: data for name, data in before.items() if name != "client.pem"
    }


def test_down_removes_from_the_bucket_what_lmr_put_there_and_no_more(home, moto_aws):
    up("--yes")
    bucket, digest = bucket_of(), bundle.own_bundle().digest
    # Beside the bundle: a user's files, some with names like ours, and a manifest that is not what it says.
    theirs = {
        "cluster/node.sh",
        f"cluster/{digest}/notes.txt",
        "cluster/mine/SHA256SUMS",
        "cluster/mine/a.whl",
    }
    for key in theirs:
        boto3.client("s3").put_object(Bucket=bucket[5:], Key=key, Body=b"0  a.whl\n")
    cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    assert keys(bucket) == theirs


def test_a_region_without_an_image_for_gpus_has_clusters_without_gpus(home, moto_aws):
    # moto knows no such parameter, as some regions do not.
    plain = ("up", "--name", "push", "--poll-seconds", 0.1, "--yes")
    with pytest.raises(CloudError, match=r"names no machine image(.|\n)*fix: --gpu-image: an ami-"):
        cluster(*plain, "--gpu", 1)
    assert "GPUs       none: us-east-1 names no image for them" in cluster(*plain, "--cpu", 1)
    assert len(running()) == 2
    assert "asked for  1 CPU and 0 GPU machines" in cluster("status", "--name", "push")
    with pytest.raises(CloudError, match="this cluster has no group of GPU machines") as told:
        cluster("scale", "--name", "push", "--gpu", 1, "--yes")
    cluster("scale", "--name", "push", "--cpu", 2, "--yes")
    assert len(running()) == 3
    # The message's remedy.
    assert "--gpu-image" in told.value.fix
    cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    up("--gpu", 1, "--yes")
    assert len(running()) == 2


@pytest.mark.parametrize(("where", "step"), [(stack, "wait"), (bundle, "put_certificates")])
def test_an_up_that_was_interrupted_goes_on(home, moto_aws, monkeypatch, where, step):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, step, interrupted)
        assert "next " not in up("--cpu", 1, "--yes")
    assert len(running()) == 1
    assert "next " in up("--cpu", 1, "--yes")
    assert len(running()) == 2
    parameters = boto3.client("ssm").get_parameters_by_path(Path="/lmr/push", Recursive=True)["Parameters"]
    assert {"/lmr/push/worker/worker.key", "/lmr/push/client/client.key"} < {p["Name"] for p in parameters}


def test_up_says_at_once_what_connect_will_lack(home, moto_aws, monkeypatch):
    monkeypatch.setenv("PATH", str(home))
    shown = up("--yes")
    assert "lacking    session-manager-plugin, for `connect`: install the Session Manager plug-in" in shown
    assert "lacking    aws, for `connect`" in shown


def test_nobody_confirmed(home, moto_aws):
    assert "start this, at most 4.84 USD per hour? [y/N]: n\nAborted." in up("--cpu", 1, stdin="n\n")
    assert running() == []


def test_no_log_and_no_line_names_account_key_or_bucket(home, moto_aws, monkeypatch, caplog):
    key, secret = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        seen = up("--cpu", 1, "--yes")
        seen += cluster("status", "--name", "push")
        seen += cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.1)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    bucket = bucket_of()[5:]
    assert "botocore" in "".join(record.name for record in caplog.records)
    assert len(log.getvalue()) > 100_000
    for secret_text in (key, secret, "123456789012", bucket):
        assert secret_text not in seen
        assert secret_text not in log.getvalue()


def test_what_is_left_is_found_by_its_tag_and_told(home, moto_aws):
    ec2, tags = boto3.client("ec2"), [{"Key": "lmr:cluster", "Value": "push"}]
    ec2.create_volume(
        AvailabilityZone="us-east-1a",
        Size=100,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    ec2.run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    with pytest.raises(CloudError, match="1 things of the cluster push are still there") as caught:
        cluster("down", "--name", "push", "--yes", "--poll-seconds", 0.01)
    # The stray machine was ended; the disk may hold something, so its owner is told how.
    assert running() == []
    assert re.search(r"disk +│ vol-\w+ +│ aws ec2 delete-volume --volume-id vol-", caught.value.printed)


def test_other_regions_need_their_own_prices(home, moto_aws, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(
        CloudError, match="the price table is for us-east-1, the cluster would be in eu-west-1"
    ):
        up("--cpu", 1, "--yes")
    table = tmp_path / "prices.toml"
    table.write_text(cluster("prices").replace("us-east-1", "eu-west-1"))
    assert "there is no cluster in eu-west-1" in cluster("status", "--prices", table)


def test_unknown_clusters(home, moto_aws):
    for command in (("status",), ("scale", "--cpu", 1), ("connect",), ("autoscale", "--deadline", "1h")):
        with pytest.raises(
            CloudError, match=r"there is no cluster other in us-east-1\ngot: clusters there: none"
        ):
            cluster(command[0], "--name", "other", *command[1:])


def test_ledgers_never_say_too_little():
    from lmr.cloud.spending import record

    now, later = datetime(2026, 11, 24, 12, tzinfo=UTC), datetime(2026, 11, 25, 12, tzinfo=UTC)
    stop = Rate(later, 0.2)
    first = record([], now, 46.0, stop)
    assert first == [Rate(now, 46.0), stop]
    more = record(first, now.replace(hour=13), 92.0)
    assert stop in more
    assert record(more, now.replace(hour=14), 0.0)[-1] == Rate(now.replace(hour=14), 0.0)
    assert stop not in record(more, now.replace(hour=14), 0.0)


def test_a_tunnel_takes_the_plug_in(home, moto_aws, tmp_path, monkeypatch):
    """With programs in the place of the AWS command line and its plug-in, both ports are asked for."""
    up("--yes")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("aws", "session-manager-plugin"):
        (programs / name).write_text(f'#!/bin/sh\necho "$AWS_DEFAULT_REGION $@" >> {tmp_path}/asked\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    shown = cluster("connect", "--name", "push", "--region", "us-east-1")
    asked = (tmp_path / "asked").read_text()
    (machine,) = running()
    for port in ("8786", "8787"):
        assert re.search(rf"us-east-1 ssm start-session --target {machine['InstanceId']} .*{port}", asked)
    assert "http://127.0.0.1:8787/status" in shown
    (programs / "session-manager-plugin").unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ClusterError, match=r"needs session-manager-plugin(.|\n)*install the Session Manager"):
        cluster("connect", "--name", "push")
