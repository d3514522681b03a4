"""Errors of a push to the Hub, each explained to the user in one line."""

import errno
import re
from collections.abc import Iterator

from huggingface_hub import errors
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from .files import PublishFile
from .secret_scan import redact, scan

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_HTTP_ERROR: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, by version
CLIENT_ERRORS: tuple[type[Exception], ...] = (_HTTP_ERROR, OSError, RuntimeError, ValueError)
# Xet's client reports HTTP statuses and broken connections only in the text of its errors.
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
_XET_BROKEN = re.compile(r"error sending request|error decoding response body|connection closed|unexpected end of file")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class PublishError(RuntimeError):
    """The push failed, completely or in part; the message says what the repository holds.

    Args:
        message: Description of the failure, in one line.
        committed: Whether the repository holds the new commit nevertheless; False by default.
    """

    def __init__(self, message: str, committed: bool = False) -> None:
        super().__init__(message)
        self.committed = committed


class StaleParentError(PublishError):
    """Someone else pushed in the meantime; the message names both commits."""


class SecretError(PublishError):
    """A file seems to hold a secret; the message names the file."""


def refuse_secrets(files: list[PublishFile], token: str | None) -> None:
    """Raises a `SecretError` where a file, as it is sent, looks like it holds a secret.

    Args:
        files: Files to publish.
        token: Access token in use, which no file may hold; None where there is none.
    """
    findings = scan(files, token)
    if findings:
        raise SecretError(
            f"nothing was sent: {'; '.join(map(str, findings))}. Remove it, and revoke it if it was shared"
        )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the chain of errors that caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def status_of(error: BaseException) -> int | None:
    """HTTP status of an error or of one of its causes; None if there is none."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError) and getattr(cause, "response", None) is not None:
            return int(cause.response.status_code)
        if match := _XET_STATUS.search(str(cause)):
            return int(match[1])
    return None


def wait_asked(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait (`Retry-After`); None if it does not ask."""
    for cause in causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None and str(headers.get("Retry-After", "")).isdigit():
            return float(headers["Retry-After"])
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk caused the error; Xet's libraries say so only in the text of their errors."""
    return any(
        (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(cause)
        for cause in causes(error)
    )


def is_connection(error: BaseException) -> bool:
    """Whether a connection could not be opened, or broke."""
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes(error)):
        return False
    names = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    if names & {"TransportError", "ConnectionError", "TimeoutError"}:
        return True
    return any(_XET_BROKEN.search(str(cause)) for cause in causes(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub cannot be reached at all: no network, unknown host, or connection refused."""
    return any(kind.__name__ == "ConnectError" for cause in causes(error) for kind in type(cause).__mro__)


def is_transient(error: BaseException) -> bool:
    """Whether a retry can help: after a temporary HTTP status (408, 425, 429, 500, 502 to 504) or a lost connection."""
    if is_disk_full(error):
        return False
    status = status_of(error)
    return status in _TRANSIENT if status is not None else is_connection(error)


def explain(error: BaseException, repo_id: str, doing: str, token: str | None = None) -> PublishError:
    """Explains an error in one line, without secrets.

    Args:
        error: Error of the Hub's client or of the system; a `PublishError` is returned unchanged.
        repo_id: Name of the repository, "user/name".
        doing: Action during which the error occurred, such as "sending the files".
        token: Access token to remove from the message, or None.
    """
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
    """Explanation of an HTTP status to the user who pushes."""
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
    "refuse_secrets",
    "status_of",
    "wait_asked",
]
