"""What the loopback Hub holds: users with tokens, repositories with commits, branches, tags and pull requests."""

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

KINDS = ("model", "dataset", "space")


@dataclass(frozen=True)
class Token:
    """Who asks, and what the token allows: role "read" or "write"."""

    user: str
    role: str
    organisations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.organisations


@dataclass(frozen=True)
class Blob:
    """A file's content by its hashes.

    Args:
        sha256: Of the content.
        size: Bytes.
        oid: Git's name: of the content, or of the pointer file of a large file.
        large: Whether it lies in large file storage.
    """

    sha256: str
    size: int
    oid: str
    large: bool


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    files: dict[str, Blob]


class StaleParentError(Exception):
    """The branch is not where the commit says that it is."""


@dataclass
class Repository:
    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # "refs/heads/main" -> oid
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, a pull request (`refs/pr/1`) or an oid."""
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.commits[self.refs[name]]
        found = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        return self.commits[found[0]] if len(found) == 1 else None

    def history(self, revision: str) -> list[Commit]:
        """From the newest to the first."""
        commit, found = self.resolve(revision), []
        while commit is not None:
            found.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return found

    def commit(
        self, revision: str, title: str, message: str, author: str, change: Callable[[dict[str, Blob]], None],
        parent: str | None = None, pull_request: bool = False,
    ) -> tuple[Commit, int | None]:  # fmt: skip
        """All changes at once, or none; the number of the pull request where one is made.

        Raises:
            StaleParentError: `parent` is not the head.
        """
        with self.lock:
            head = self.resolve(parent if pull_request and parent else revision)
            assert head is not None
            if parent is not None and not head.oid.startswith(parent):
                raise StaleParentError(head.oid)
            files = dict(head.files)
            change(files)
            made = self._record(head.oid, title, message, author, files)
            if pull_request:
                number = next(n for n in itertools.count(1) if f"refs/pr/{n}" not in self.refs)
                self.refs[f"refs/pr/{number}"] = made.oid
                return made, number
            name = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
            self.refs[name] = made.oid
            return made, None

    def _record(self, parent: str | None, title: str, message: str, author: str, files: dict[str, Blob]) -> Commit:
        body = repr((self.id, parent, title, message, len(self.commits), sorted(files.items())))
        made = Commit(hashlib.sha1(body.encode()).hexdigest(), parent, title, message, author, files)
        self.commits[made.oid] = made
        return made

    def begin(self, attributes: Blob) -> None:
        """The first commit, by the system, as the Hub makes it."""
        files = {".gitattributes": attributes}
        self.refs["refs/heads/main"] = self._record(None, "initial commit", "", "system", files).oid


class Store:
    """Everything on the Hub, kept in memory."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.contents: dict[str, bytes] = {}  # of regular and large files, by SHA-256
        self.lock = threading.Lock()

    def add_user(self, name: str, token: str, role: str = "write", organisations: tuple[str, ...] = ()) -> None:
        assert role in ("read", "write")
        self.tokens[token] = Token(name, role, organisations)

    def keep(self, content: bytes, large: bool = False) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = content
        return self.blob(sha256, len(content), large)

    def blob(self, sha256: str, size: int, large: bool) -> Blob:
        """The blob of a content that is here already, or of a large one that Xet holds."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Blob(sha256, size, git_oid(pointer if large else self.contents[sha256]), large)

    def create(self, kind: str, repo_id: str, private: bool) -> Repository | None:
        """None where it exists."""
        with self.lock:
            if (kind, repo_id) in self.repositories:
                return None
            made = Repository(kind, repo_id, private)
            made.begin(self.keep(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"))
            self.repositories[kind, repo_id] = made
            return made

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, str]:
        """SHA-256 of each file at a revision, for tests."""
        commit = self.repositories[kind, repo_id].resolve(revision)
        assert commit is not None, f"{repo_id} has no revision {revision}"
        return {path: blob.sha256 for path, blob in commit.files.items()}


def git_oid(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


__all__ = ["KINDS", "Blob", "Commit", "Repository", "StaleParentError", "Store", "Token", "git_oid"]
