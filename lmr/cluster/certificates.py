"""A private certificate authority for one cluster, and the three certificates that it signs.

Whoever holds a certificate of this authority may send code to the cluster, so it signs nothing but this
cluster's scheduler, workers and clients. A client's certificate is good for calling only: nobody can pass
for the scheduler or a worker with it. Keys are elliptic (P-256) and never leave the folder unasked.
"""

import ipaddress
import os
import shlex
import stat
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lmr.errors import ClusterError

__all__ = ["ROLES", "check_certificate", "make_certificates", "store_certificates"]

ROLES = ("scheduler", "worker", "client")

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_CALLS, _ANSWERS = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def make_certificates(
    folder: Path, *, hosts: Sequence[str] = (), days: int = 365, force: bool = False
) -> list[Path]:
    """Make an authority and certificates for scheduler, workers and clients; return the files.

    Parameters
    ----------
    folder
        Gets `ca.pem`, `ca.key` and `<role>.pem`, `<role>.key` for each role; keys with mode 0600.
    hosts
        Names or IP addresses of the scheduler's host, written into its certificate.
    days
        How long they are valid.
    force
        Replace what is there.

    Raises
    ------
    ClusterError
        If files are there already, or the folder cannot be written or is open to others.
    """
    names = [f"{role}.{kind}" for role in ("ca", *ROLES) for kind in ("pem", "key")]
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise ClusterError(
            f"{folder} holds certificates already",
            got=", ".join(there),
            fix="choose another folder, or --force to replace them (all machines then need the new ones)",
        )
    expires = datetime.now(UTC) + timedelta(days=days)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    # Two clusters' authorities must not be taken for one another, so each has a name of its own.
    subject = _name(f"lmr cluster authority {uuid.uuid4().hex[:8]}")
    authority = (
        _begin(subject, subject, authority_key.public_key(), expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files = {"ca.pem": authority.public_bytes(serialization.Encoding.PEM), "ca.key": _pem(authority_key)}
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _begin(_name(f"lmr {role}"), subject, key.public_key(), expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([_CALLS] if role == "client" else [_CALLS, _ANSWERS]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if role == "scheduler" and hosts:
            alternatives = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        files[f"{role}.pem"] = certificate.public_bytes(serialization.Encoding.PEM)
        files[f"{role}.key"] = _pem(key)
    return store_certificates(folder, files)


def store_certificates(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write certificates and keys into a folder, keys with mode 0600; return the files.

    Raises
    ------
    ClusterError
        If the folder cannot be written, or others may write there and it holds more than this.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close(folder)
        return [_store(folder / name, data) for name, data in files.items()]
    except OSError as error:
        raise ClusterError(
            f"cannot write certificates to {folder}", got=str(error), fix="choose a folder of your own"
        ) from error


def _close(folder: Path) -> None:
    """See to it that nobody else may put another certificate in the place of one."""
    found = folder.stat()
    if not found.st_mode & _OTHERS_WRITE:
        return
    # An empty folder of the user's own serves nothing else yet; nobody loses anything.
    if found.st_uid == os.geteuid() and not any(folder.iterdir()):
        folder.chmod(0o700)
        return
    raise ClusterError(
        f"others may write to {folder}, and so replace certificates",
        got=f"mode {stat.S_IMODE(found.st_mode):04o}",
        fix=f"name a folder that is not there yet, such as {shlex.quote(str(folder / 'certs'))}",
    )


def check_certificate(folder: Path, role: str) -> None:
    """Check that a folder holds what a role needs: readable, signed by the authority there, not expired.

    Raises
    ------
    ClusterError
        If it does not, naming the file.
    """
    names = ["ca.pem", f"{role}.pem", f"{role}.key"]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ClusterError(
            f"no certificate for a {role} in {folder}",
            got=f"{', '.join(missing)} missing",
            fix=f"copy {', '.join(names)} there from where `lmr cluster certs` made them",
        )
    _check_private(folder / names[2])
    try:
        authority, certificate = (
            x509.load_pem_x509_certificate((folder / n).read_bytes()) for n in names[:2]
        )
        key = serialization.load_pem_private_key((folder / names[2]).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"the certificate for a {role} in {folder} cannot be read",
            got=" ".join(str(error).split())[:200],
            fix=_fix_of_reading(error) or f"copy {', '.join(names)} there again",
        ) from error
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception as error:
        raise ClusterError(
            f"{folder / names[1]} was not signed by {folder / 'ca.pem'}",
            got=f"a certificate signed by {certificate.issuer.rfc4514_string()}",
            fix=f"copy {', '.join(names)} from the same folder of `lmr cluster certs`",
        ) from error
    if key.public_key() != certificate.public_key():
        raise ClusterError(
            f"{folder / names[2]} is not the key of {folder / names[1]}",
            got="a certificate and a key that do not fit",
            fix=f"copy {', '.join(names)} from the same folder of `lmr cluster certs`",
        )
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ClusterError(
            f"the certificate {folder / names[1]} has expired",
            got=f"valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            fix="make new ones with `lmr cluster certs` and copy them to all machines",
        )


def _fix_of_reading(error: Exception) -> str:
    """Return how this user may read a file that is another's; nothing for other errors."""
    if not isinstance(error, PermissionError) or error.filename is None:
        return ""
    return f"as its owner: chown {os.geteuid()} {shlex.quote(str(error.filename))}"


def _check_private(key: Path) -> None:
    """Refuse a key that others may read or write.

    A group may read a key that belongs to root, as PostgreSQL allows it too: so do container engines and
    Debian's `ssl-cert` hand keys to services that do not run as root.
    """
    found = key.stat()
    allowed = stat.S_IRWXU
    if found.st_uid == 0 and os.geteuid() != 0:
        allowed |= stat.S_IRGRP
    if not stat.S_IMODE(found.st_mode) & ~allowed:
        return
    mine = found.st_uid == os.geteuid() or os.geteuid() == 0
    raise ClusterError(
        f"others may use the private key {key}",
        got=f"mode {stat.S_IMODE(found.st_mode):04o}",
        fix=f"{'' if mine else 'as its owner: '}chmod 600 {shlex.quote(str(key))}",
    )


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, expires: datetime
) -> x509.CertificateBuilder:
    # Valid from an hour ago: the clocks of a cluster differ.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ClusterError(
            "the name of a host is not valid", got=host, fix="--host takes a DNS name or an IP address"
        ) from error


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _store(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    mode = 0o600 if path.suffix == ".key" else 0o644
    # The mode is set as the file is made: a key is at no moment readable by others.
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    os.replace(temporary, path)
    return path
