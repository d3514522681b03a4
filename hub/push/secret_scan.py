"""Search for secrets in the files to publish, and their removal from messages and logs."""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .files import PublishFile

# Formats of credentials that are specific enough for few false alarms.
_SHAPES = {
    "a Hugging Face token": rb"\b(?:hf|api_org)_[A-Za-z0-9]{20,}\b",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "a Google API key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a package index token": rb"\bpypi-[A-Za-z0-9_-]{50,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/:@]{3,}@[\w.-]+",
}
# A name that suggests a secret, followed by its value; `_looks_random` judges the value.
_NAMED = re.compile(
    rb"(?i)(?:api[_-]?key|secret|passwo?r?d|passphrase|access[_-]?key|token)[\w-]{0,40}"
    rb"[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/_=~-]{16,})"
)
_NAME_BEFORE = re.compile(rb"[\w.-]+\Z", re.ASCII)
_SHAPE = {what: re.compile(pattern) for what, pattern in _SHAPES.items()}
_ANY_SHAPE = re.compile("|".join(f"(?:{pattern.decode()})" for pattern in _SHAPES.values()), re.ASCII)
_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*(?:Signature|token|sig|X-Amz)[^\s'\"]*")
_TEXT = (".json", ".yaml", ".yml", ".md", ".txt", ".py", ".toml", ".cfg", ".svg", ".csv", "")
_SECRET_NAME = re.compile(r"(?i)token|secret|passw|api_?key|access_?key|credential")
_WINDOW, _OVERLAP = 1 << 20, 512


@dataclass(frozen=True)
class Finding:
    """Suspicious place in a file, such as a likely secret, without the secret itself.

    Args:
        path: Path of the file relative to the published folder.
        line: Line number from 1; None for a binary file.
        what: Description of the finding.
    """

    path: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.what}"


def scan(files: list[PublishFile], token: str | None = None) -> list[Finding]:
    """Searches the files to send for likely secrets; at most one finding per file.

    Text files are searched for known credential formats, for secrets assigned to a name, and for the values of this
    process's own secrets. Weights are searched for own secrets, and their header for credential formats. Other files
    are searched for credential formats and own secrets.
    """
    own = own_secrets(token)
    return [finding for file in files if file.sent and (finding := _scan_file(file, own)) is not None]


def own_secrets(token: str | None = None) -> dict[bytes, str]:
    """Values of the token in use and of secrets in the environment, each with a description."""
    found = {
        value.encode(): f"the value of {name}"
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= 12 and not value.startswith(("/", "~"))
    }
    return found | ({token.encode(): "the access token in use"} if token else {})


def _scan_file(file: PublishFile, own: dict[bytes, str]) -> Finding | None:
    is_text = file.path.lower().endswith(_TEXT[:-1]) or "." not in file.path.rsplit("/", 1)[-1].lstrip(".")
    lines = 0
    for start, block in _blocks(file):
        found = _own_secret(block, own)
        if found is None and (is_text or not file.path.endswith(".safetensors") or start == 0):
            text = block[: 8 + int.from_bytes(block[:8], "little")] if file.path.endswith(".safetensors") else block
            found = _shaped(text) or (_assigned(text) if is_text else None)
        if found is not None:
            at, what = found
            return Finding(file.path, lines + block[:at].count(b"\n") + 1 if is_text else None, what)
        lines += block[:_WINDOW].count(b"\n")
    return None


def _blocks(file: PublishFile) -> Iterator[tuple[int, bytes]]:
    """Yields the offset and bytes of overlapping blocks of a file, so that no secret is split between two."""
    if file.content is not None:
        for start in range(0, max(len(file.content), 1), _WINDOW):
            yield start, file.content[start : start + _WINDOW + _OVERLAP]
        return
    assert file.source is not None
    with file.source.open("rb") as stream:
        start, block = 0, stream.read(_WINDOW + _OVERLAP)
        while block:
            yield start, block
            start += _WINDOW
            block = block[_WINDOW:] + stream.read(_WINDOW)
            if len(block) <= _OVERLAP:  # only the overlap is left, which the last block contained
                return


def _own_secret(block: bytes, own: dict[bytes, str]) -> tuple[int, str] | None:
    for secret, what in own.items():
        if (at := block.find(secret)) >= 0:
            return at, what
    return None


def _shaped(block: bytes) -> tuple[int, str] | None:
    for what, pattern in _SHAPE.items():
        if match := pattern.search(block):
            return match.start(), what
    return None


def _assigned(block: bytes) -> tuple[int, str] | None:
    for match in _NAMED.finditer(block):
        if _looks_random(match[1]):
            before = _NAME_BEFORE.search(block[max(0, match.start() - 40) : match.start()])
            name = (before[0] if before else b"") + re.split(rb"[:=\s\"']", match[0])[0]
            return match.start(), f"a value that looks like a secret, under the name {name.decode()!r}"
    return None


def _looks_random(value: bytes) -> bool:
    """Whether a value mixes letters and digits, with at least 3.2 bits of entropy per character."""
    if not (re.search(rb"[A-Za-z]", value) and re.search(rb"\d", value)):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) >= 3.2


def redact(text: str, token: str | None = None) -> str:
    """Replaces tokens in a text, and the query part of URLs that may be signed, by "***"."""
    for secret in own_secrets(token):
        text = text.replace(secret.decode(), "***")
    text = _ANY_SHAPE.sub("***", _SIGNED.sub(r"\1?***", text))
    return re.sub(r"(?i)(bearer\s+)\S+", r"\1***", text)


class _Redaction(logging.Filter):
    def __init__(self, token: str | None) -> None:
        super().__init__()
        self.token = token

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage(), self.token), ()
        return True


@contextmanager
def redacted_logs(token: str | None) -> Iterator[None]:
    """Removes tokens from the log messages of the Hub's client and its libraries inside the block."""
    names = ("huggingface_hub", "httpx", "httpx2", "httpcore", "urllib3", "vithub")
    loggers = [
        logging.getLogger(name) for name in [*logging.root.manager.loggerDict, "vithub"] if name.startswith(names)
    ]
    redaction = _Redaction(token)
    for logger in loggers:
        logger.addFilter(redaction)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(redaction)


__all__ = ["Finding", "own_secrets", "redact", "redacted_logs", "scan"]
