"""Waiting for storage that is busy: which errors pass by themselves, and how long they are waited for.

S3 asks for less (503 SlowDown), fails (500), drops connections; a network file system loses its server for
a while. Each operation here may be repeated without harm, so it is, with pauses that double and are drawn
at random, so that a thousand tasks do not come back at once. The clients' own retries are turned off: they
would multiply with these.
"""

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["has_stale_credentials", "is_transient", "retry", "retry_seconds", "s3_answer", "s3_operation"]

Result = TypeVar("Result")

_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 10.0
_FIRST_CALL_SECONDS = 5.0
"""A storage that has never answered is more likely a wrong address than a busy server."""

_PASSING_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT),
        *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
    }
)
_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
# Classes of botocore and aiohttp, which are not imported here: S3 clients are loaded by URL.
_PASSING_CLASSES = frozenset(
    {
        *("ConnectionError", "HTTPClientError", "IncompleteReadError", "ResponseParserError"),
        *("ClientConnectionError", "ClientPayloadError"),
    }
)

_STALE_CODES = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
        *("InvalidToken", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        *("InvalidSecurity", "InvalidTokenId", "InvalidIdentityToken", "UnrecognizedClientException"),
        # A HEAD request is answered without a body: the status stands in the code's place.
        "400",
    }
)
_STALE_CLASSES = frozenset(
    {
        # botocore itself finds none, or cannot renew those of a profile, a session or a program.
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError"),
    }
)
_RENEWED_AGAIN_SECONDS = 30.0
"""How often a HEAD request's 403 makes credentials be read anew: it mostly means what it says."""

_answered: set[str] = set()
_renewed_for_403 = -_RENEWED_AGAIN_SECONDS


def retry_seconds() -> float:
    """Return how long busy storage is waited for: `$LMR_STORAGE_PATIENCE`, or a minute."""
    with suppress(ValueError):
        return max(0.0, float(os.environ.get("LMR_STORAGE_PATIENCE", "60")))
    return 60.0


def retry(call: Callable[[], Result], storage: str, renew: Callable[[], None] | None = None) -> Result:
    """Return what a call returns; while it fails with errors that pass, pause and call again.

    Parameters
    ----------
    call
        Something that may be done twice without harm.
    storage
        Names the server or file system. One that has never answered is given up after seconds.
    renew
        Called once when the credentials were refused as expired or invalid; then the call is made again.

    Raises
    ------
    Exception
        What the last call raised, with a note of how long it was tried.
    """
    start = time.monotonic()
    tries = 0
    while True:
        try:
            result = call()
        except Exception as error:
            if renew is not None and (has_stale_credentials(error) or _is_403_of_now(error)):
                # Credentials that a person or a service has renewed meanwhile are read anew.
                renew()
                renew = None
                continue
            if not is_transient(error):
                raise
            tries += 1
            heard = storage in _answered or _response(error) is not None
            limit = retry_seconds() if heard else min(_FIRST_CALL_SECONDS, retry_seconds())
            pause = random.uniform(0.5, 1.0) * min(_PAUSE_SECONDS * 2 ** (tries - 1), _LONGEST_PAUSE_SECONDS)
            waited = time.monotonic() - start
            if waited + pause > limit:
                error.add_note(f"tried {tries} times in {waited:.0f} s")
                raise
            time.sleep(pause)
        else:
            _answered.add(storage)
            return result


def is_transient(error: BaseException) -> bool:
    """Tell whether an error of a file system or an S3 client is likely to pass by itself."""
    for one in _causes(error):
        response = _response(one)
        if response is not None:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in _PASSING_STATUSES or response.get("Error", {}).get("Code") in _PASSING_CODES
        if isinstance(one, TimeoutError | ConnectionError):
            return True
        # What a web server answered, as aiohttp tells it.
        if type(one).__name__ == "ClientResponseError" and getattr(one, "status", 0) in _PASSING_STATUSES:
            return True
        if isinstance(one, OSError) and one.errno in _PASSING_ERRNOS:
            return True
        if _PASSING_CLASSES & {base.__name__ for base in type(one).__mro__}:
            return True
    return False


def has_stale_credentials(error: BaseException) -> bool:
    """Tell whether S3 refused credentials as expired or invalid, which newly read ones may mend."""
    if any(type(one).__name__ in _STALE_CLASSES for one in _causes(error)):
        return True
    code, status = s3_answer(error)
    return code in _STALE_CODES or (status == 400 and code in ("", "Bad Request", "BadRequest"))


def _is_403_of_now(error: BaseException) -> bool:
    """Tell whether a HEAD request was forbidden, and credentials have not been read anew for that lately.

    A key that was replaced is answered so, too; but so are all objects that are really forbidden.
    """
    global _renewed_for_403
    now = time.monotonic()
    if s3_answer(error)[0] != "403" or now - _renewed_for_403 < _RENEWED_AGAIN_SECONDS:
        return False
    _renewed_for_403 = now
    return True


def s3_operation(error: BaseException) -> str:
    """Return the name of the S3 operation that an error tells of, such as PutObject; empty where unknown."""
    return next((str(one.operation_name) for one in _causes(error) if hasattr(one, "operation_name")), "")


def s3_answer(error: BaseException) -> tuple[str, int]:
    """Return the code and the status of S3's answer that an error tells of; empty and 0 without one."""
    for one in _causes(error):
        if (response := _response(one)) is not None:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return str(response.get("Error", {}).get("Code") or ""), int(status or 0)
    return "", 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    # The translated error comes first, the S3 client's own behind it; the latter knows the status.
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    yield from reversed(chain)


def _response(error: BaseException) -> dict[str, Any] | None:
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return response
    return None
