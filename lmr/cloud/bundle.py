"""What the machines of a cluster need to become its members: this very code, its scripts, certificates."""

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lmr.cloud.session import Aws, aws_errors
from lmr.errors import CloudError
from lmr.shipped import packed, shipped

__all__ = [
    "fetch_certificates",
    "forget_parameters",
    "has_certificates",
    "own_wheel",
    "put_certificates",
    "upload_bundle",
]

FILES = ("lmr-scheduler.service", "lmr-worker.service", "lmr-spot.service", "logged.sh", "spot.sh")
# Clients' are handed over last.
ROLES = {role: ("ca.pem", f"{role}.pem", f"{role}.key") for role in ("scheduler", "worker", "client")}


def own_wheel() -> tuple[str, bytes]:
    """Pack the code that runs here as a wheel: its name and its bytes.

    So the cluster runs what this machine runs, whether it was installed from a wheel or is being edited.

    Raises
    ------
    CloudError
        If lmr was not installed, so that nothing tells what it depends on.
    """
    try:
        metadata = importlib.metadata.distribution("lmr")
    except importlib.metadata.PackageNotFoundError as error:
        raise CloudError("lmr is not installed", fix="pip install -e '.[aws]'") from error
    about = f"lmr-{metadata.version}.dist-info"
    entries = {name: path.read_bytes() for name, path in packed().items()}
    for name in ("METADATA", "entry_points.txt"):
        entries[f"{about}/{name}"] = (metadata.read_text(name) or "").encode()
    entries[f"{about}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: lmr\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    entries = dict(sorted(entries.items()))
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in entries.items())
    entries[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return f"lmr-{metadata.version}-py3-none-any.whl", buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def upload_bundle(aws: Aws, bucket: str) -> int:
    """Put code and scripts into the bucket, where waiting machines find them; return how many bytes."""
    name, wheel = own_wheel()
    contents = {file: shipped(f"deploy/aws/{file}").read_bytes() for file in FILES}
    contents |= {"constraints.txt": shipped("constraints.txt").read_bytes(), name: wheel}
    s3 = aws.client("s3")
    with aws_errors(aws.redactor):
        for old in s3.list_objects_v2(Bucket=bucket, Prefix="cluster/").get("Contents", ()):
            s3.delete_object(Bucket=bucket, Key=old["Key"])
        for file, data in contents.items():
            s3.put_object(Bucket=bucket, Key=f"cluster/{file}", Body=data)
        # Machines begin when this one is there.
        start = shipped("deploy/aws/node.sh").read_bytes()
        s3.put_object(Bucket=bucket, Key="cluster/node.sh", Body=start)
    return sum(map(len, contents.values())) + len(start)


def put_certificates(aws: Aws, tags: Mapping[str, str], folder: Path) -> None:
    """Hand over certificates as encrypted parameters, each role its own; the authority's key stays here."""
    cluster = tags["lmr:cluster"]
    ssm = aws.client("ssm")
    with aws_errors(aws.redactor):
        for role, files in ROLES.items():
            for file in files:
                name = f"/lmr/{cluster}/{role}/{file}"
                ssm.put_parameter(
                    Name=name, Value=(folder / file).read_text(), Type="SecureString", Overwrite=True
                )
                # Tags cannot be given together with Overwrite.
                ssm.add_tags_to_resource(
                    ResourceType="Parameter",
                    ResourceId=name,
                    Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
                )


def fetch_certificates(aws: Aws, cluster: str, folder: Path) -> None:
    """Fetch the client's certificate of a cluster, for a machine that did not start it.

    Raises
    ------
    CloudError
        If there is none.
    """
    rows = _of_clients(aws, cluster)
    if len(rows) != len(ROLES["client"]):
        raise CloudError(
            f"the cluster {cluster} has no certificate for clients in AWS",
            fix="`lmr cluster down` and `up` make new ones; results in the bucket stay",
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for row in rows:
        path = folder / row["Name"].rpartition("/")[2]
        path.touch(mode=0o600)
        path.write_text(row["Value"])


def has_certificates(aws: Aws, cluster: str) -> bool:
    """Return whether all certificates of a cluster were handed over."""
    return len(_of_clients(aws, cluster)) == len(ROLES["client"])


def _of_clients(aws: Aws, cluster: str) -> list[Mapping[str, str]]:
    path = f"/lmr/{cluster}/client"
    return list(aws.pages("ssm", "get_parameters_by_path", "Parameters", Path=path, WithDecryption=True))


def forget_parameters(aws: Aws, cluster: str) -> None:
    """Delete a cluster's certificates and limits from AWS."""
    found = [
        row["Name"]
        for row in aws.pages(
            "ssm", "get_parameters_by_path", "Parameters", Path=f"/lmr/{cluster}", Recursive=True
        )
    ]
    with aws_errors(aws.redactor):
        for start in range(0, len(found), 10):
            aws.client("ssm").delete_parameters(Names=found[start : start + 10])
