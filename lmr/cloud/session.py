"""The way to AWS: a session that is checked first, and errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lmr.cloud.redact import Redactor, redact_logs
from lmr.errors import CloudError

__all__ = ["Aws", "aws_errors", "explain", "open_aws", "quota_error"]


class Aws:
    """A session with AWS in one region.

    Attributes
    ----------
    region
        Its region.
    redactor
        Knows what must not be printed.
    """

    def __init__(self, session: Any, redactor: Redactor) -> None:
        self._session = session
        self.region: str = session.region_name
        self.redactor = redactor
        self.client = cache(self._client)

    def _client(self, service: str) -> Any:
        return self._session.client(service)

    def pages(self, service: str, operation: str, result: str, **arguments: Any) -> Iterator[Any]:
        """Yield the items of all pages of a list."""
        with aws_errors(self.redactor):
            for page in self.client(service).get_paginator(operation).paginate(**arguments):
                yield from page.get(result, ())


def open_aws(redactor: Redactor, *, region: str | None = None, profile: str | None = None) -> Aws:
    """Open a session, and say what is missing before anything is asked.

    Parameters
    ----------
    redactor
        Learns the session's keys.
    region, profile
        As the AWS command line has them; None: from its environment and files.

    Raises
    ------
    CloudError
        If boto3, credentials or a region are missing.
    """
    try:
        import boto3
    except ImportError as error:
        raise CloudError(
            "boto3 is not installed", got="lmr without the extra aws", fix='pip install "lmr[aws]"'
        ) from error
    redact_logs(redactor)
    with aws_errors(redactor):
        session = boto3.Session(region_name=region, profile_name=profile)
        credentials = session.get_credentials()
        if credentials is None:
            raise CloudError(
                "AWS is asked by nobody: there are no credentials",
                got="neither AWS_ACCESS_KEY_ID, nor ~/.aws/credentials, nor a role",
                fix="`aws configure`, `aws sso login`, or AWS_PROFILE=NAME",
            )
        frozen = credentials.get_frozen_credentials()
    for secret in (frozen.access_key, frozen.secret_key, frozen.token):
        redactor.hide(secret, "KEY")
    if not session.region_name:
        raise CloudError(
            "no region of AWS was chosen",
            got="neither --region, nor AWS_DEFAULT_REGION, nor a region in ~/.aws/config",
            fix="--region us-east-1, or wherever the photos are",
        )
    return Aws(session, redactor)


@contextmanager
def aws_errors(redactor: Redactor) -> Iterator[None]:
    """Turn what botocore raises into errors for users."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, redactor) from error


LOGIN = "`aws configure`, `aws sso login`, or AWS_PROFILE=NAME; `aws sts get-caller-identity` must work"

# By the code of AWS's answer: what it means, and what to do.
CODES = {
    "ExpiredToken": ("the session with AWS has expired", LOGIN),
    "ExpiredTokenException": ("the session with AWS has expired", LOGIN),
    "RequestExpired": ("AWS says that the request is too old", "set this machine's clock"),
    "InvalidClientTokenId": ("AWS does not know these credentials", LOGIN),
    "UnrecognizedClientException": ("AWS does not know these credentials", LOGIN),
    "AuthFailure": ("AWS does not know these credentials", LOGIN),
    "InvalidAccessKeyId": ("AWS does not know these credentials", LOGIN),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", LOGIN),
    "OptInRequired": ("this account may not use that service or region", "enable it in AWS's console"),
    **dict.fromkeys(
        ("Throttling", "ThrottlingException", "RequestLimitExceeded"),
        ("AWS is asked too often just now", "the same command again in a minute"),
    ),
    "VPCIdNotSpecified": ("this account has no default network", "--vpc and --subnets name one"),
    "InsufficientInstanceCapacity": (
        "AWS has no such machine left just now",
        "other types (--cpu-types, --gpu-types), another region, or later",
    ),
}
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden")
QUOTAS = (
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "InstanceLimitExceeded",
    "LimitExceeded",
    "LimitExceededException",
    "VpcLimitExceeded",
    "ServiceQuotaExceededException",
)


def explain(error: Exception, redactor: Redactor) -> CloudError:
    """Return the user's error for one of botocore's."""
    name = type(error).__name__
    text = redactor(" ".join(str(error).split()))[:400]
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError") or "SSO" in name:
        return CloudError("AWS got no usable credentials", got=text, fix=LOGIN)
    if name in ("TokenRetrievalError", "LoginRefreshRequired"):
        return CloudError("the session with AWS has expired", got=text, fix=LOGIN)
    if name == "ProfileNotFound":
        return CloudError("there is no such profile", got=text, fix="`aws configure list-profiles`")
    if name in ("NoRegionError", "InvalidRegionError"):
        return CloudError("no usable region of AWS", got=text, fix="--region us-east-1, or another")
    if name in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ProxyConnectionError",
    ):
        return CloudError(
            "AWS cannot be reached", got=text, fix="check the network, the region's name, proxies"
        )
    response = getattr(error, "response", None) or {}
    code = response.get("Error", {}).get("Code", name)
    if code in DENIED:
        operation = getattr(error, "operation_name", "this")
        return CloudError(
            f"these credentials may not do {operation}",
            got=text,
            fix="ask the account's owner for the rights in docs/guides/aws.md, or use another AWS_PROFILE",
        )
    if code in QUOTAS:
        return quota_error(text)
    if code in CODES:
        what, fix = CODES[code]
        return CloudError(what, got=text, fix=fix)
    return CloudError(
        "AWS refused", got=text, fix="`lmr cluster status` tells what is there; see docs/guides/aws.md"
    )


def quota_error(text: str) -> CloudError:
    """Return the error for a quota that is used up."""
    return CloudError(
        "the account's quota does not allow so many machines",
        got=text,
        fix="fewer machines, or ask at Service Quotas > EC2 for more vCPUs of the family, on demand or spot",
    )
