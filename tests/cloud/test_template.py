"""The template and the scripts that machines run."""

import importlib.metadata
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from cfnlint.decode import cfn_yaml
from packaging.requirements import Requirement

from lmr.cli.cluster.machines import cluster_app
from lmr.cloud.bundle import Bundle
from lmr.cloud.found import SCHEDULER_DISK_GB
from lmr.cloud.prices import read_prices
from lmr.cloud.stack import Order
from lmr.shipped import shipped

TEMPLATE = cfn_yaml.load(str(shipped("deploy/aws/stack.yaml")))
RESOURCES = TEMPLATE["Resources"]
SCRIPTS = ("node.sh", "logged.sh", "spot.sh")
SECRET = re.compile(r"BEGIN|PRIVATE|AKIA[A-Z0-9]{16}|password|\b\d{12}\b")


def by_type(kind):
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def user_data(properties):
    text, names = properties["UserData"]["Fn::Base64"]["Fn::Sub"]
    assert list(names) == ["Name"]
    return text


def launch_templates():
    return {n: p["LaunchTemplateData"] for n, p in by_type("AWS::EC2::LaunchTemplate").items()}


def machines():
    return {**launch_templates(), **by_type("AWS::EC2::Instance")}


def test_cfn_lint_finds_nothing():
    done = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "-r", "us-east-1", "--", shipped("deploy/aws/stack.yaml")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_machine_asks_for_tokens_and_encrypts_its_disk():
    assert len(machines()) == 3
    for machine in machines().values():
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        for disk in machine["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"]
            assert disk["Ebs"]["DeleteOnTermination"]


def test_nothing_is_open_to_the_world():
    rules = [*by_type("AWS::EC2::SecurityGroupIngress").values()]
    for group in by_type("AWS::EC2::SecurityGroup").values():
        rules += group.get("SecurityGroupIngress", [])
    assert len(rules) == 3
    for rule in rules:
        assert "SourceSecurityGroupId" in rule or rule["CidrIp"] == {"Ref": "ClientCidr"}
    allowed = re.compile(f"(?:{TEMPLATE['Parameters']['ClientCidr']['AllowedPattern']})")
    assert TEMPLATE["Parameters"]["ClientCidr"]["Default"] == ""
    for cidr, good in {"": 1, "192.0.2.7/32": 1, "10.0.0.0/8": 1, "0.0.0.0/0": 0, "10.0.0.0/7": 0}.items():
        assert bool(allowed.fullmatch(cidr)) == bool(good), cidr


def test_members_reach_little():
    egress = [*by_type("AWS::EC2::SecurityGroupEgress").values()]
    for name, group in by_type("AWS::EC2::SecurityGroup").items():
        # Without a rule of its own a security group lets everything out.
        assert group["SecurityGroupEgress"], name
        egress += group["SecurityGroupEgress"]
    for rule in egress:
        if rule.get("CidrIp") == "127.0.0.1/32":
            continue
        ports = rule["FromPort"], rule["ToPort"]
        if "DestinationSecurityGroupId" in rule:
            assert ports in ((1024, 65535), (2049, 2049))
        elif rule.get("CidrIp") == "0.0.0.0/0" or rule.get("CidrIpv6") == "::/0":
            assert (rule["IpProtocol"], ports) == ("tcp", (443, 443))
        else:
            assert ipaddress.ip_network(rule["CidrIp"]).is_private
            assert ports == (53, 53)


def test_bucket_and_file_system_refuse_what_is_not_encrypted_or_not_by_the_access_point():
    (policy,) = by_type("AWS::S3::BucketPolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [{"Fn::GetAtt": ["Bucket", "Arn"]}, {"Fn::Sub": "${Bucket.Arn}/*"}]

    (system,) = by_type("AWS::EFS::FileSystem").values()
    rules = system["FileSystemPolicy"]["Statement"]
    # No Allow here: who may mount is said once, in the members' policy.
    assert [rule["Effect"] for rule in rules] == ["Deny", "Deny"]
    assert rules[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert rules[1]["Condition"] == {"Null": {"elasticfilesystem:AccessPointArn": "true"}}
    (allowed,) = [s for s in statements() if "elasticfilesystem" in json.dumps(s["Action"])]
    assert allowed["Resource"]["Fn::Sub"].endswith(":file-system/${FileSystem}")
    bound = allowed["Condition"]["StringEquals"]["elasticfilesystem:AccessPointArn"]
    assert bound["Fn::Sub"].endswith(":access-point/${AccessPoint}")
    assert "elasticfilesystem:ClientRootAccess" not in allowed["Action"]


def statements():
    documents = [p["PolicyDocument"] for p in by_type("AWS::IAM::ManagedPolicy").values()]
    for role in by_type("AWS::IAM::Role").values():
        documents += [policy["PolicyDocument"] for policy in role["Policies"]]
    return [statement for document in documents for statement in document["Statement"]]


def test_roles_may_little():
    for statement in statements():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        # Session Manager's actions know no narrower resource.
        assert (statement["Resource"] == "*") == (statement.get("Sid") == "Tunnel")
        if statement.get("Sid") == "Tunnel":
            assert all(re.match(r"ssmmessages:|ssm:UpdateInstanceInformation", a) for a in actions)
    # A worker reads neither the scheduler's nor the clients' certificates.
    for role, folder in (("WorkerRole", "worker"), ("SchedulerRole", "scheduler")):
        (policy,) = RESOURCES[role]["Properties"]["Policies"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Resource"]["Fn::Sub"].endswith(f":parameter/lmr/${{ClusterName}}/{folder}/*")
    denied = [s for s in statements() if s["Effect"] == "Deny"]
    assert [s["Resource"]["Fn::Sub"][0][-10:] for s in denied] == ["/cluster/*"]


def test_the_bucket_stays_is_closed_and_forgets_broken_uploads():
    (bucket,) = [r for r in RESOURCES.values() if r["Type"] == "AWS::S3::Bucket"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
    (rule,) = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    kept = [n for n, r in RESOURCES.items() if r.get("DeletionPolicy") == "Retain"]
    assert kept == ["Bucket", "BucketPolicy"]


def test_groups_start_empty_and_mix_types_on_spot():
    groups = by_type("AWS::AutoScaling::AutoScalingGroup")
    assert sorted(groups) == ["CpuGroup", "GpuGroup"]
    for group in groups.values():
        assert group["DesiredCapacity"] == group["MinSize"] == "0"
        policy = group["MixedInstancesPolicy"]
        spread = policy["InstancesDistribution"]
        assert spread["SpotAllocationStrategy"] == "price-capacity-optimized"
        assert spread["OnDemandPercentageAboveBaseCapacity"] == 0
        assert "Ref" in spread["OnDemandBaseCapacity"]
        assert len(policy["LaunchTemplate"]["Overrides"]) >= 2
        assert group["CapacityRebalance"]


def test_all_that_can_be_tagged_says_whose_it_is():
    untagged = {
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::S3::BucketPolicy",
        "AWS::EFS::MountTarget",
        "AWS::IAM::InstanceProfile",
        "AWS::IAM::ManagedPolicy",
    }
    for name, part in RESOURCES.items():
        if part["Type"] in untagged:
            continue
        text = json.dumps(part["Properties"])
        assert "lmr:cluster" in text, name
        assert "lmr:owner" in text, name
    for data in launch_templates().values():
        assert [t["ResourceType"] for t in data["TagSpecifications"]] == ["instance", "volume"]
    assert RESOURCES["Scheduler"]["Properties"]["PropagateTagsToVolumeOnCreation"]


def test_logs_are_kept_for_a_time():
    (group,) = by_type("AWS::Logs::LogGroup").values()
    assert group["RetentionInDays"] == {"Ref": "LogDays"}


def test_the_code_and_the_template_agree():
    defaults = {name: p.get("Default") for name, p in TEMPLATE["Parameters"].items()}
    prices = read_prices()
    for types in (defaults["CpuTypes"], defaults["GpuTypes"], defaults["SchedulerType"]):
        sizes = {(prices.machine(t).vcpus, prices.machine(t).gpus) for t in types.split(",")}
        assert len(sizes) == 1
    (disk,) = RESOURCES["Scheduler"]["Properties"]["BlockDeviceMappings"]
    assert disk["Ebs"]["VolumeSize"] == SCHEDULER_DISK_GB
    order = Order(name="a", owner="b", scheduler_type="", cpu_types=(), gpu_types=())
    assert (order.cpu_max, order.gpu_max, order.disk_gb) == tuple(
        defaults[name] for name in ("CpuMax", "GpuMax", "DiskGb")
    )


SHELLS = {
    **{name: user_data(machine) for name, machine in machines().items()},
    **{name: shipped(f"deploy/aws/{name}").read_text() for name in SCRIPTS},
}


@pytest.mark.parametrize(("name", "text"), SHELLS.items(), ids=SHELLS.keys())
def test_shell_scripts_parse_and_hold_no_secret(name, text, tmp_path):
    script = tmp_path / "script.sh"
    script.write_text(re.sub(r"\$\{[A-Z]\w*(::|\.)?\w*\}", "value", text) if name not in SCRIPTS else text)
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    assert not SECRET.search(text)


FAKE_AWS = """#!/bin/bash
# aws s3 cp --region REGION s3://BUCKET/KEY FILE
echo "$5" >>"$STORE/asked"
cp "$STORE/${5#s3://value/}" "$6"
"""


@pytest.mark.parametrize("name", machines())
def test_user_data_runs_nothing_but_the_bundle_that_it_names(name, tmp_path):
    store, place = tmp_path / "store", tmp_path / "opt"
    good = Bundle({"node.sh": b"echo good $(ls) >>$STORE/ran\n", "lmr-1.whl": b"wheel"})
    folder = store / good.folder
    folder.mkdir(parents=True)
    # What an earlier cluster left, in the old way and in the new one.
    for left in (store / "cluster" / "node.sh", folder / "lmr-0.whl"):
        left.write_text("echo old >>$STORE/ran\n")

    asked = store / "asked"
    asked.touch()
    (tmp_path / "aws").write_text(FAKE_AWS)
    (tmp_path / "aws").chmod(0o755)
    text = (
        user_data(machines()[name]).replace("${Bundle}", good.digest).replace("/opt/lmr/bundle", str(place))
    )
    text = re.sub(r"\$\{[A-Z]\w*(::|\.)?\w*\}", "value", text).replace("sleep 10", "sleep 0.05")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "STORE": str(store)}

    def until(condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError

    with subprocess.Popen(["bash", "-c", text], env=environment, cwd=tmp_path) as machine:
        try:
            bad = {**good.files, "node.sh": b"echo bad >>$STORE/ran\n"}
            # Not all there; another manifest; the right manifest and another script.
            for manifest, files in (
                (good.manifest, {}),
                (Bundle(bad).manifest, bad),
                (good.manifest, bad),
                (good.manifest, good.files),
            ):
                assert not (store / "ran").exists()
                (folder / "SHA256SUMS").write_bytes(manifest)
                for file, data in files.items():
                    (folder / file).write_bytes(data)
                if files is not good.files:
                    # Several whole tries, so that one began after the files had been laid there.
                    before = asked.stat().st_size
                    until(lambda before=before: asked.stat().st_size > before + 1000)
            until(lambda: machine.poll() == 0)
        finally:
            machine.kill()
    assert (store / "ran").read_text() == "good SHA256SUMS lmr-1.whl node.sh\n"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_machines_install_what_was_pinned_each_with_its_digest(kind):
    machine = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}
    pins = {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, shipped("constraints.txt").read_text().splitlines())
        if pin.marker is None or pin.marker.evaluate(machine)
    }
    blocks = re.split(r"\n(?=\w)", shipped(f"deploy/aws/requirements-{kind}.txt").read_text().strip())
    found = {}
    for block in blocks:
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
        found[name] = version
    assert {name: pins[name] for name in found} == found
    wanted = [Requirement(text) for text in importlib.metadata.requires("lmr")]
    extras = {"cpu": ("",), "gpu": ("", "gpu", "features")}[kind]
    needed = {
        r.name for r in wanted if any(r.marker is None or r.marker.evaluate({"extra": e}) for e in extras)
    } - {"lmr"}
    assert needed <= {*found}
    assert ("torch" in found) == (kind == "gpu")


def test_units_restart_and_start_what_lmr_has(tmp_path):
    commands = typer.main.get_command(cluster_app).commands
    cluster_commands = {n: [o for p in c.params for o in p.opts] for n, c in commands.items()}
    for role in ("scheduler", "worker"):
        unit = shipped(f"deploy/aws/lmr-{role}.service").read_text()
        assert "Restart=always" in unit
        assert "User=lmr" in unit
        log, cache = re.search(r"/var/log/lmr", unit)[0], "/var/cache/lmr"
        writable = re.search(r"ReadWritePaths=(.*)", unit)[1].split()
        assert {log, cache, "-/mnt/lmr"} == {*writable}
        command = re.search(r"/opt/lmr/bin/lmr (cluster \w+)(.*)", unit)
        known = cluster_commands[command[1].split()[1]]
        for option in re.findall(r"--[a-z-]+", command[2]):
            assert option in known
    if shutil.which("systemd-analyze"):
        # Their programs are not on this machine: give it ones that are.
        for name in ("lmr-scheduler.service", "lmr-worker.service", "lmr-spot.service"):
            unit = shipped(f"deploy/aws/{name}").read_text().replace("/opt/lmr/bin/logged.sh", "/bin/true")
            (tmp_path / name).write_text(unit.replace("User=lmr", "User=root"))
            done = subprocess.run(
                ["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True
            )
            # What its program may do, as systemd itself rates it: 10 is everything (8.7 and more before).
            rated = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--threshold=40", tmp_path / name],
                capture_output=True,
                text=True,
            )
            assert rated.returncode == 0, rated.stdout
            complaints = [line for line in done.stderr.splitlines() if name in line]
            assert not complaints, done.stderr


def test_what_a_member_logs_names_no_bucket_account_or_key(tmp_path):
    log = tmp_path / "worker.log"
    said = "in my.photos for 123456789012 with AKIAIOSFODNN7EXAMPLE to s3://other/x"
    subprocess.run(
        [
            "bash",
            shipped("deploy/aws/logged.sh"),
            log,
            sys.executable,
            "-c",
            f"import sys; print({said!r}); sys.exit(3)",
        ],
        env={**os.environ, "LMR_BUCKET": "my.photos"},
        check=False,
    )
    for _ in range(100):
        if log.is_file() and log.read_text():
            break
        threading.Event().wait(0.02)
    assert log.read_text() == "in BUCKET for ACCOUNT with KEY to s3://BUCKET/x\n"


class Metadata(BaseHTTPRequestHandler):
    """The metadata service of a spot machine: knows tokens, and from the third question on a notice."""

    asked = 0

    def do_PUT(self):
        self.answer(200 if self.path == "/latest/api/token" else 404, b"token")

    def do_GET(self):
        if self.headers["X-aws-ec2-metadata-token"] != "token":
            return self.answer(401)
        Metadata.asked += 1
        known = self.path == "/latest/meta-data/spot/instance-action"
        return self.answer(200 if known and Metadata.asked > 2 else 404, b'{"action": "terminate"}')

    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, which Amazon Linux has")
def test_a_spot_notice_is_heard(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        env = {
            **os.environ,
            "IMDS": f"http://127.0.0.1:{server.server_port}",
            "EVERY_SECONDS": "0.05",
            "no_proxy": "127.0.0.1",
        }
        try:
            done = subprocess.run(
                ["bash", shipped("deploy/aws/spot.sh"), "touch", tmp_path / "retired"],
                env=env,
                timeout=30,
                check=True,
            )
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0
    assert Metadata.asked == 3
    assert (tmp_path / "retired").exists()
