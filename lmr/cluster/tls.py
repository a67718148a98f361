"""TLS between client, scheduler and workers, and what is said when it does not come about.

A Dask scheduler runs what it is sent, so whoever reaches its port owns the cluster. With TLS both ends of
every connection show a certificate of the cluster's own authority (`lmr.cluster.certificates`).
"""

import socket
import ssl
from pathlib import Path

import dask
import distributed

from lmr.cluster.address import Address
from lmr.cluster.certificates import check_certificate
from lmr.errors import ClusterError, one_line

__all__ = ["check_address", "security", "why_unreachable"]

_PROBE_SECONDS = 5.0


def security(address: str, folder: str | None) -> distributed.Security | None:
    """Return what a client needs to call a scheduler; None for one that does not speak TLS.

    Parameters
    ----------
    address
        The scheduler's address.
    folder
        The folder that holds `ca.pem`, `client.pem` and `client.key`, if any.

    Raises
    ------
    ClusterError
        If address and certificates do not fit, or a certificate is missing, broken or expired.
    """
    # Someone may have set certificates in Dask's own configuration.
    if not folder and dask.config.get("distributed.comm.tls.client.cert"):
        return distributed.Security()
    check_address(address, folder, "client")
    if not folder:
        return None
    names = {"ca_file": "ca.pem", "client_cert": "client.pem", "client_key": "client.key"}
    files = {f"tls_{field}": str(Path(folder) / name) for field, name in names.items()}
    return distributed.Security(require_encryption=True, tls_min_version=ssl.TLSVersion.TLSv1_3, **files)


def check_address(address: str, folder: str | None, role: str) -> None:
    """Check that an address and a folder of certificates fit each other, and that the certificates are good.

    Raises
    ------
    ClusterError
        If it is no address, `tls://` comes without certificates, certificates without `tls://`, or a
        certificate is not good.
    """
    where = Address.parse(address)
    if where.encrypted and not folder:
        raise ClusterError(
            f"the scheduler at {address} asks for a certificate",
            got="neither --tls nor LMR_TLS",
            fix=f"--tls DIR, a folder with ca.pem, {role}.pem and {role}.key from `lmr cluster certs`",
        )
    if folder and not where.encrypted:
        raise ClusterError(
            f"{address} is no encrypted address, but certificates were given",
            got=f"--tls {folder}",
            fix=f"use tls://{where.location}, or leave --tls and LMR_TLS away",
        )
    if folder:
        check_certificate(Path(folder), role)


def why_unreachable(
    address: str, credentials: distributed.Security | None, error: BaseException
) -> ClusterError:
    """Find out by one more call why a scheduler could not be reached, and return the error that says so."""
    where = Address.parse(address)
    reason = _handshake(where, credentials)
    if reason == "speaks TLS":
        return ClusterError(
            f"the scheduler at {address} speaks TLS only",
            got="a tcp:// address",
            fix=f"use tls://{where.location} and --tls DIR",
        )
    if reason == "speaks no TLS":
        return ClusterError(
            f"the scheduler at {address} does not speak TLS",
            got="a tls:// address",
            fix="start it with `lmr cluster scheduler --tls DIR`,"
            f" or use tcp://{where.location} without --tls",
        )
    if reason == "foreign":
        return ClusterError(
            f"the scheduler at {address} shows a certificate of another authority",
            got="not signed by this ca.pem",
            fix="copy ca.pem, client.pem and client.key from the folder that this cluster was started with",
        )
    if reason == "refused":
        return ClusterError(
            f"the scheduler at {address} refuses this certificate",
            got="a client.pem that its authority did not sign, or that has expired",
            fix="copy ca.pem, client.pem and client.key from the folder that this cluster was started with",
        )
    return ClusterError(
        f"cannot reach a Dask scheduler at {address}",
        got=one_line(error),
        fix="check the address (tcp://host:8786 or tls://host:8786) and that the scheduler runs",
    )


def _handshake(address: Address, credentials: distributed.Security | None) -> str | None:
    """Try a TLS handshake; tell in a word what stands against it, None if nothing does or nobody answers."""
    if credentials is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context = credentials.get_connection_args("client")["ssl_context"]
    try:
        with (
            socket.create_connection((address.host, address.port), _PROBE_SECONDS) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            if credentials is None:
                return "speaks TLS" if not address.encrypted else None
            # TLS 1.3: whether the server takes the client's certificate shows with its first answer.
            encrypted.recv(1)
        return None
    except ssl.SSLCertVerificationError:
        return "foreign"
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return "speaks no TLS" if address.encrypted else None
        return "refused" if credentials is not None else "speaks TLS"
    except (OSError, ValueError):
        return None
