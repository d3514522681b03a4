"""What can go wrong with a push, each as one line for the person who pushes."""

import errno
import re
from collections.abc import Iterator

from huggingface_hub import errors
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from .secret_scan import redact

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
# What the official client, its HTTP library and Xet's client raise.
_HTTP_ERROR: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, by version
CLIENT_ERRORS: tuple[type[Exception], ...] = (_HTTP_ERROR, OSError, RuntimeError, ValueError)
# Xet's client tells statuses and broken connections in words.
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
_XET_BROKEN = re.compile(r"error sending request|error decoding response body|connection closed|unexpected end of file")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class PublishError(RuntimeError):
    """A push that did not happen, or not wholly; the message says what the repository holds.

    Args:
        message: What happened, in one line.
        committed: Whether the repository holds the new commit all the same.
    """

    def __init__(self, message: str, committed: bool = False) -> None:
        super().__init__(message)
        self.committed = committed


class StaleParentError(PublishError):
    """Someone else pushed meanwhile; the message names both commits."""


class SecretError(PublishError):
    """A file looks like it holds a secret; the message names it."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            return int(cause.response.status_code)
        if match := _XET_STATUS.search(str(cause)):
            return int(match[1])
    return None


def wait_asked(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait (`Retry-After`), where it does."""
    for cause in causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None and str(headers.get("Retry-After", "")).isdigit():
            return float(headers["Retry-After"])
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether it came from a full disk; the libraries of Xet tell it in words only."""
    return any(
        (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(cause)
        for cause in causes(error)
    )


def is_connection(error: BaseException) -> bool:
    """Whether a connection could not be made, or broke."""
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes(error)):
        return False
    names = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    if names & {"TransportError", "ConnectionError", "TimeoutError"}:
        return True
    return any(_XET_BROKEN.search(str(cause)) for cause in causes(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether there is no way to the Hub at all: no network, no such host, nobody listening."""
    return any(kind.__name__ == "ConnectError" for cause in causes(error) for kind in type(cause).__mro__)


def is_transient(error: BaseException) -> bool:
    """Whether trying again can help: 5xx, 429, a connection that broke."""
    if is_disk_full(error):
        return False
    status = status_of(error)
    return status in _TRANSIENT if status is not None else is_connection(error)


def explain(error: BaseException, repo_id: str, doing: str, token: str | None = None) -> PublishError:
    """The line for an error that came up while `doing` something with a repository."""
    if isinstance(error, PublishError):
        return error
    if is_disk_full(error):
        text = f"the disk is full ({doing}); free some space and publish again"
    elif any(isinstance(cause, OfflineModeIsEnabled) for cause in causes(error)):
        text = f"cannot publish to {repo_id}: HF_HUB_OFFLINE is set"
    elif (status := status_of(error)) is not None:
        text = _refused(status, error, repo_id, doing)
    elif is_connection(error):
        text = f"no connection to the Hub ({doing}): {_first_line(error)}"
    else:
        text = f"could not publish to {repo_id} ({doing}): {_first_line(error)}"
    return PublishError(redact(text, token))


def _refused(status: int, error: BaseException, repo_id: str, doing: str) -> str:
    """What a status means to whoever pushes."""
    if status == 401:
        return f"the Hub refused the access token for {repo_id} ({doing}); {LOGIN}"
    if status == 403:
        verb = "read" if doing.startswith(("reading", "looking", "asking")) else "write to"
        return f"this access token may not {verb} {repo_id} (403, {doing}): {_server_message(error)}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such revision ({doing})"
    if status == 404:
        return f"the Hub does not find {repo_id}, or this access token may not see it ({doing})"
    if status == 429:
        return f"the Hub asks to slow down (429, {doing}), several times; publish again later"
    if status >= 500:
        return f"the Hub failed ({status}, {doing}), several times; publish again later"
    return f"the Hub refused with {status} ({doing}): {_server_message(error)}"


def _server_message(error: BaseException) -> str:
    for cause in causes(error):
        if message := getattr(cause, "server_message", None):
            return " ".join(str(message).split())
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


__all__ = [
    "CLIENT_ERRORS",
    "LOGIN",
    "PublishError",
    "SecretError",
    "StaleParentError",
    "explain",
    "is_connection",
    "is_disk_full",
    "is_transient",
    "is_unreachable",
    "status_of",
    "wait_asked",
]
