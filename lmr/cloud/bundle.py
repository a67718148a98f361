"""What the machines of a cluster need to become its members: this very code, its scripts, certificates."""

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmr.cloud.session import Aws, aws_errors
from lmr.errors import CloudError
from lmr.shipped import packed, shipped

__all__ = [
    "Bundle",
    "fetch_certificates",
    "forget_parameters",
    "has_certificates",
    "own_bundle",
    "own_wheel",
    "put_certificates",
    "remove_bundles",
    "upload_bundle",
]

FILES = (
    *("node.sh", "logged.sh", "spot.sh", "lmr-scheduler.service", "lmr-worker.service", "lmr-spot.service"),
    *("requirements-cpu.txt", "requirements-gpu.txt"),
)
MANIFEST = "SHA256SUMS"
FOLDER = "cluster/"
"""Where bundles lie in a bucket, each in a folder of its own; members of the cluster cannot write there."""
# Clients' are handed over last.
ROLES = {role: ("ca.pem", f"{role}.pem", f"{role}.key") for role in ("scheduler", "worker", "client")}


@dataclass(frozen=True)
class Bundle:
    """What machines run: files by name, and a digest that names all of them.

    The digest stands in the user data of the machines and is the name of the bundle's folder in the bucket.
    So a machine runs the code that its cluster was started with, or waits; never what lies there by chance.
    """

    files: Mapping[str, bytes]

    @property
    def manifest(self) -> bytes:
        """The digests of all files, as `sha256sum --check` reads them."""
        lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(self.files.items()))
        return "".join(lines).encode()

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def folder(self) -> str:
        """Its folder in the bucket."""
        return f"{FOLDER}{self.digest}/"


def own_bundle() -> Bundle:
    """Pack what runs here, with the scripts and the hashes of all packages that it needs."""
    name, wheel = own_wheel()
    return Bundle({name: wheel} | {file: shipped(f"deploy/aws/{file}").read_bytes() for file in FILES})


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


def upload_bundle(aws: Aws, bucket: str, bundle: Bundle) -> int:
    """Put a bundle into the bucket, where waiting machines find it; return how many bytes."""
    s3 = aws.client("s3")
    # The manifest comes first: whatever is there later is listed in one, and can be removed by it.
    files = {MANIFEST: bundle.manifest, **bundle.files}
    with aws_errors(aws.redactor):
        for file, data in files.items():
            s3.put_object(Bucket=bucket, Key=f"{bundle.folder}{file}", Body=data)
    return sum(map(len, files.values()))


def remove_bundles(aws: Aws, bucket: str) -> None:
    """Remove the bundles from a bucket: what a manifest lists that has the digest it is named by, no more."""
    s3 = aws.client("s3")
    folders = [
        row["Prefix"]
        for row in aws.pages(
            "s3", "list_objects_v2", "CommonPrefixes", Bucket=bucket, Prefix=FOLDER, Delimiter="/"
        )
    ]
    with aws_errors(aws.redactor):
        for folder in folders:
            digest = folder.removeprefix(FOLDER).strip("/")
            manifest = _read(aws, bucket, f"{folder}{MANIFEST}")
            if manifest is None or hashlib.sha256(manifest).hexdigest() != digest:
                continue
            # The manifest goes last, so that an interrupted removal can be gone on with.
            for name in [*(line.split()[1] for line in manifest.decode().splitlines()), MANIFEST]:
                s3.delete_object(Bucket=bucket, Key=f"{folder}{name}")


def _read(aws: Aws, bucket: str, key: str) -> bytes | None:
    from botocore.exceptions import ClientError

    try:
        data: bytes = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    return data


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


def fetch_certificates(aws: Aws, cluster: str) -> dict[str, bytes]:
    """Fetch the client's certificate of a cluster, for a machine that did not start it; its files by name.

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
    return {row["Name"].rpartition("/")[2]: row["Value"].encode() for row in rows}


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
