"""Repository on the Hub as the target of a push: failed requests are retried, and the commit is made only once."""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ...data.argument_names import argument
from .errors import (
    CLIENT_ERRORS,
    LOGIN,
    PublishError,
    StaleParentError,
    explain,
    is_transient,
    is_unreachable,
    status_of,
    wait_asked,
)
from .files import PublishFile
from .secret_scan import redact

logger = logging.getLogger("vithub")
ATTEMPTS = 5
_LONGEST_WAIT = 60.0  # seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    """State of a branch.

    Args:
        commit: Commit that the branch points to.
        files: Hash by path, as the Hub has it: SHA-256 of large files, git's SHA-1 of others.
        sizes: Size in bytes by path.
    """

    commit: str
    files: dict[str, str] = field(repr=False)
    sizes: dict[str, int] = field(repr=False)


@dataclass(frozen=True)
class Pushed:
    """Commit that arrived on the Hub.

    Args:
        commit: Hash of the commit.
        pull_request: URL of the pull request that it opened, or None.
        reference: Reference of the pull request, such as "refs/pr/3", or None.
    """

    commit: str
    pull_request: str | None = None
    reference: str | None = None


class PushTarget:
    """Model repository to push to.

    Args:
        repo_id: Name of the repository, "user/name".
        token: Access token; None uses the token of the login or of the environment.
    """

    def __init__(self, repo_id: str, token: str | None = None) -> None:
        self.repo_id, self.token = repo_id, token or get_token()
        self.api = HfApi(token=self.token, library_name="vithub")
        self.reached = False  # until then, a Hub that cannot be reached is not retried

    def attempt(self, doing: str, call: Callable[[], T], settled: Callable[[], T | None] = lambda: None) -> T:
        """Runs a request and retries it with growing pauses if the Hub or the connection fails.

        Args:
            doing: Purpose of the request, for messages, such as "reading the branches".
            call: Function that makes the request and returns its result.
            settled: Function called before each retry; a result other than None means that the failed attempt arrived
                after all, and is returned.

        Raises:
            PublishError: The request was refused, or failed every time.
        """
        for number in range(ATTEMPTS):
            try:
                return call()
            except CLIENT_ERRORS as error:
                hopeless = not self.reached and is_unreachable(error)
                if hopeless or not is_transient(error) or number == ATTEMPTS - 1:
                    raise explain(error, self.repo_id, doing, self.token) from None
                self._pause(error, doing, number)
            if (result := settled()) is not None:
                return result
        raise AssertionError("not reached")

    def _pause(self, error: BaseException, doing: str, number: int) -> None:
        seconds = min(wait_asked(error) or 2.0**number, _LONGEST_WAIT)
        reason = status_of(error) or redact(str(error).strip().split("\n")[0], self.token)
        logger.warning("%s: %s; trying again in %.0f s", doing, reason, seconds)
        time.sleep(seconds)

    def identify(self, to_own: bool) -> str:
        """Name of the user to whom the token belongs, after checking that the user may push.

        Args:
            to_own: Whether the namespace must belong to the user; False for a pull request.

        Raises:
            PublishError: The token is missing, unknown or read-only, or the namespace belongs to someone else.
        """
        if self.token is None:
            raise PublishError(f"cannot publish to {self.repo_id}: there is no access token; {LOGIN}")
        me: dict[str, Any] = self.attempt("asking whose the token is", self.api.whoami)
        self.reached = True
        name, namespace = str(me["name"]), self.repo_id.split("/")[0]
        if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PublishError(
                f"cannot publish to {self.repo_id}: this access token of {name} may only read; make one that may write "
                "at https://huggingface.co/settings/tokens"
            )
        names = [name, *(str(organisation["name"]) for organisation in me.get("orgs") or [])]
        if to_own and namespace.lower() not in [own.lower() for own in names]:
            raise PublishError(
                f"cannot publish to {self.repo_id}: the token belongs to {name}, who is no member of {namespace} "
                f"(may write to: {', '.join(names)}); {argument('create_pr')} proposes the files to a repository of "
                "others"
            )
        return name

    def find(self) -> Any:
        """Information about the repository, or None if there is none that the token may see."""

        def look() -> Any:
            try:
                return self.api.model_info(self.repo_id)
            except RepositoryNotFoundError as error:
                if status_of(error) == 404:
                    return False
                raise

        return self.attempt(f"looking for {self.repo_id}", look) or None

    def refuse_other_kinds(self) -> None:
        """Raises a `PublishError` if a data set or a Space has the name."""
        for kind, words in (("dataset", "a data set"), ("space", "a Space")):
            look = partial(self.api.repo_exists, self.repo_id, repo_type=kind)
            if self.attempt(f"looking for {words} {self.repo_id}", look):
                raise PublishError(f"cannot publish to {self.repo_id}: it is {words}, no model; choose another name")

    def create(self, private: bool) -> None:
        """Creates the repository; a model repository that was created in the meantime is accepted."""

        def make() -> bool:
            try:
                self.api.create_repo(self.repo_id, private=private or None, repo_type="model")
            except CLIENT_ERRORS as error:
                if status_of(error) == 409 and self.find() is not None:
                    return True
                raise
            return True

        self.attempt(f"creating {self.repo_id}", make, lambda: True if self.find() is not None else None)

    def references(self) -> Any:
        """Branches, tags and pull requests of the repository."""
        return self.attempt(
            f"reading the branches of {self.repo_id}",
            lambda: self.api.list_repo_refs(self.repo_id, include_pull_requests=True),
        )

    def open_branch(self, name: str) -> None:
        """Creates a branch at the head of main if it does not exist."""
        self.attempt(
            f"making the branch {name}", lambda: self.api.create_branch(self.repo_id, branch=name, exist_ok=True)
        )

    def head(self, revision: str | None) -> Head:
        """State of a revision: its commit, and the hashes and sizes of its files."""
        doing = f"reading {self.repo_id}"
        commit = self.attempt(doing, lambda: self.api.model_info(self.repo_id, revision=revision)).sha
        assert commit is not None
        listed = self.attempt(
            doing, lambda: list(self.api.list_repo_tree(self.repo_id, recursive=True, revision=commit))
        )
        files = [entry for entry in listed if isinstance(entry, RepoFile)]
        hashes = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in files}
        return Head(commit, hashes, {entry.path: entry.size for entry in files})

    def find_commit(self, commit: str) -> Head | None:
        """State of a commit; None if the repository has no such commit."""
        try:
            return self.head(commit)
        except PublishError:
            return None

    def commit(
        self,
        files: Sequence[PublishFile],
        removed: Sequence[str],
        parent: Head,
        message: str,
        revision: str | None,
        create_pr: bool,
    ) -> Pushed:
        """Commits all changes at once on `parent`; large files are sent first, and only once despite retries.

        Args:
            files: Files to add or replace.
            removed: Paths to delete.
            parent: State of the branch that the commit is based on.
            message: Commit message.
            revision: Branch to commit to; None means main.
            create_pr: Whether to open a pull request instead of changing the branch.

        Raises:
            StaleParentError: The branch is no longer at `parent`.
            PublishError: The commit was refused, or failed every time; the repository is unchanged.
        """
        operations: list[Any] = [
            CommitOperationAdd(file.path, file.content if file.content is not None else str(file.source))
            for file in files
        ]
        operations += [CommitOperationDelete(path, is_folder=False) for path in removed]
        known = {ref.ref for ref in self.references().pull_requests or []} if create_pr else set()
        expected = _expected(parent, files, removed)

        def send() -> Pushed:
            info = self.api.create_commit(
                self.repo_id, operations, commit_message=message, revision=revision, create_pr=create_pr,
                parent_commit=parent.commit,
            )  # fmt: skip
            return Pushed(info.oid, info.pr_url, info.pr_revision)

        for number in range(ATTEMPTS):
            try:
                return send()
            except CLIENT_ERRORS as error:
                failure, stale = explain(error, self.repo_id, "sending the files", self.token), status_of(error) == 412
                if not stale and not is_transient(error):
                    raise failure from None
                landed = self._landed(failure, expected, parent, revision, known if create_pr else None)
                if landed is not None:
                    return landed
                if stale or number == ATTEMPTS - 1:
                    raise PublishError(f"{failure}; {self.repo_id} holds what it held, {parent.commit[:12]}") from None
                self._pause(error, "sending the files", number)
        raise AssertionError("not reached")

    def _landed(
        self,
        failure: PublishError,
        expected: dict[str, set[str]],
        parent: Head,
        revision: str | None,
        known: set[str] | None,
    ) -> Pushed | None:
        """The commit, if it arrived although its response was lost; otherwise None.

        Raises:
            StaleParentError: The branch holds another new commit.
            PublishError: The state of the repository cannot be read.
        """
        try:
            return self._look_for(expected, parent, revision, known)
        except StaleParentError:
            raise
        except PublishError as error:
            raise PublishError(
                f"{failure}. Whether it arrived could not be seen ({error}); publish again: nothing is sent twice"
            ) from None

    def _look_for(
        self, expected: dict[str, set[str]], parent: Head, revision: str | None, known: set[str] | None
    ) -> Pushed | None:
        if known is not None:
            for ref in self.references().pull_requests or []:
                if ref.ref not in known and _holds(self.head(ref.target_commit), expected):
                    url = f"{self.api.endpoint}/{self.repo_id}/discussions/{ref.ref.rsplit('/', 1)[-1]}"
                    return Pushed(ref.target_commit, url, ref.ref)
            return None
        head = self.head(revision)
        if head.commit == parent.commit:
            return None
        if _holds(head, expected):
            return Pushed(head.commit)
        raise StaleParentError(
            f"someone else pushed to {self.repo_id} meanwhile: it is at {head.commit[:12]} now, and this push was made "
            f"for {parent.commit[:12]}; nothing was changed. Look at {self.api.endpoint}/{self.repo_id}/commits/"
            f"{revision or 'main'} and publish again to put these files on top"
        )

    def read_back(self, files: Sequence[PublishFile], removed: Sequence[str], commit: str) -> None:
        """Downloads the files of a commit and compares their hashes with those of the local files.

        Raises:
            PublishError: A file is missing or differs, or a removed one is still there; the message names it.
        """
        holds = self.head(commit)
        wrong = [path for path in removed if path in holds.files]
        with tempfile.TemporaryDirectory(prefix="vithub-read-back-") as folder:
            wrong += [
                file.path
                for file in files
                if file.path not in holds.files or self._hash(file, commit, Path(folder)) != file.hashes()[0]
            ]
        if wrong:
            names = ", ".join(sorted(wrong))
            raise PublishError(f"{self.repo_id} at {commit[:12]} does not hold what was sent: {names}; publish again")

    def _hash(self, file: PublishFile, commit: str, folder: Path) -> str:
        """SHA-256 of a file as downloaded from the repository."""
        if shutil.disk_usage(folder).free < file.size:
            raise PublishError(f"the disk is full: reading {file.path} back takes {file.size:,} bytes below {folder}")
        got = self._download(file.path, commit, folder)
        try:
            return PublishFile(file.path, got.stat().st_size, True, "", source=got).hashes()[0]
        finally:
            got.unlink()
            shutil.rmtree(folder / ".cache", ignore_errors=True)

    def _download(self, path: str, commit: str, folder: Path) -> Path:
        get = partial(
            self.api.hf_hub_download, self.repo_id, path, revision=commit, local_dir=folder, force_download=True
        )
        return Path(self.attempt(f"reading {path}", get))

    def read(self, path: str, commit: str) -> bytes:
        """Content of a small file at a commit."""
        with tempfile.TemporaryDirectory(prefix="vithub-read-") as folder:
            return self._download(path, commit, Path(folder)).read_bytes()

    def dataset_tags(self, name: str) -> list[str]:
        """Tags of a data set on the Hub; empty where there is none that the token may see."""

        def look() -> list[str]:
            try:
                return list(self.api.dataset_info(name).tags or [])
            except RepositoryNotFoundError:
                return []

        return self.attempt(f"looking for the data set {name}", look)

    def read_dataset(self, name: str, path: str) -> bytes | None:
        """Content of a small file of a data set; None where it has no such file."""

        def get(folder: str) -> bytes | None:
            try:
                file = self.api.hf_hub_download(name, path, repo_type="dataset", local_dir=folder)
            except EntryNotFoundError:
                return None
            return Path(file).read_bytes()

        with tempfile.TemporaryDirectory(prefix="vithub-read-") as folder:
            return self.attempt(f"reading {path} of the data set {name}", partial(get, folder))

    def tag(self, name: str, commit: str) -> None:
        """Creates a tag for a commit; a tag that already names this commit is accepted.

        Raises:
            PublishError: The tag names another commit.
        """

        def make() -> bool:
            try:
                self.api.create_tag(self.repo_id, tag=name, revision=commit)
            except CLIENT_ERRORS as error:
                if status_of(error) == 409 and self.tagged(name) == commit:
                    return True
                raise
            return True

        self.attempt(f"making the tag {name}", make)

    def tagged(self, name: str) -> str | None:
        """Commit that a tag names, or None if there is no such tag."""
        return next((ref.target_commit for ref in self.references().tags if ref.name == name), None)


def _expected(parent: Head, files: Sequence[PublishFile], removed: Sequence[str]) -> dict[str, set[str]]:
    """Possible hashes of each file after the push, by path; the Hub uses one of a file's two hashes."""
    expected = {path: {oid} for path, oid in parent.files.items() if path not in removed}
    return expected | {file.path: set(file.hashes()) for file in files}


def _holds(head: Head, expected: dict[str, set[str]]) -> bool:
    return head.files.keys() == expected.keys() and all(oid in expected[path] for path, oid in head.files.items())


__all__ = ["ATTEMPTS", "Head", "PushTarget", "Pushed"]
