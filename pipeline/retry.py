"""When a storage request is tried again: which errors pass, and how long to wait."""

from __future__ import annotations

import errno
import http.client
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

DELAYS_S = (0.1, 0.3, 1.0, 3.0, 6.0, 10.0)  # before the second, third ... attempt

_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_EREMOTEIO = getattr(errno, "EREMOTEIO", errno.EIO)  # Linux only; s3fs makes it of status 500
_PASSING_ERRNO = frozenset({errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, _EREMOTEIO})
# By name, because the libraries behind s3://, gs://, az:// and https:// are optional.
_PASSING_NAMES = frozenset(
    {
        "HTTPClientError", "EndpointConnectionError", "ConnectionClosedError", "ReadTimeoutError", "ConnectTimeoutError",
        "IncompleteReadError", "ResponseParserError", "ClientPayloadError", "ClientConnectionError", "ClientOSError",
        "ServerDisconnectedError", "ServiceRequestError", "ServiceResponseError", "IncompleteRead", "TransportError",
    }
)  # fmt: skip


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was raised from, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error of s3fs, gcsfs, adlfs or aiohttp stands for, or None."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        for name in ("status", "status_code", "code"):
            status = getattr(cause, name, None)
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment. 403 and 404 never do."""
    status = http_status(error)
    if status is not None:
        return status in _PASSING_STATUS
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    for cause in causes(error):
        if isinstance(cause, TimeoutError | ConnectionError | http.client.IncompleteRead):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING_ERRNO:
            return True
        if any(base.__name__ in _PASSING_NAMES for base in type(cause).__mro__):
            return True
    return False


def call(operation: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Run ``operation``, again after each of DELAYS_S (plus up to half of it) while its errors are transient.

    Raises the last error as it came.
    """
    for delay_s in DELAYS_S:
        try:
            return operation()
        except Exception as error:
            if not is_transient(error):
                raise
        sleep(delay_s * random.uniform(1.0, 1.5))
    return operation()
