"""Push of prepared files: one commit, read back, and a second one that names it in the card."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.argument_names import argument
from ..bundle.code_bundle import bundle_files
from ..card.header import RESULTS
from ..card.model_card import CARD
from ..conversion.model_classes import MODELS
from .cards import Cards
from .errors import PublishError
from .files import PublishFile
from .manifest import MANIFEST, with_manifest
from .report import PublishReport
from .signing import SIGNATURE
from .target import Head, Pushed, PushTarget

# Weights that a new push replaces, even if the new ones have other names.
_OLD_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
# Files that tell of the others, and change with the commit that holds these.
_ABOUT = {CARD, MANIFEST, SIGNATURE}


def open_repository(target: PushTarget, private: bool, create_pr: bool) -> bool:
    """Creates the repository if it does not exist, and returns whether it had to."""
    info = target.find()
    if info is None:
        target.refuse_other_kinds()
        if create_pr:
            raise PublishError(f"there is no repository {target.repo_id} to propose the files to")
        target.create(private)
        return True
    if private and not info.private:
        raise PublishError(
            f"{target.repo_id} exists and is public, so nothing was sent; make it private on its page, or leave "
            f"{argument('private')} out"
        )
    return False


def open_branch(target: PushTarget, revision: str | None) -> str | None:
    """Branch to push to, created if it does not exist."""
    if revision is None or revision.startswith("refs/pr/"):
        return revision
    references = target.references()
    if revision in {ref.name for ref in references.branches}:
        return revision
    if revision in {ref.name for ref in references.tags} or re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PublishError(f"cannot push to {revision} of {target.repo_id}: it is no branch, but a fixed commit")
    target.open_branch(revision)
    return revision


@dataclass(frozen=True)
class Push:
    """One push, in two commits if the card names the commit of the code: that is known only when it is made.

    Args:
        target: Repository.
        cards: Source of the card.
        sign: PEM file of the private key that signs the manifest; None signs nothing.
        title: Commit message.
        tag: Tag to create for the last commit, or None.
    """

    target: PushTarget
    cards: Cards
    sign: str | Path | None
    title: str
    tag: str | None

    def send(self, files: list[PublishFile], head: Head, branch: str | None, create_pr: bool) -> PublishReport:
        """Sends what differs from a branch's head, reads it back, and lets the card name the commit of the code."""
        target, pin = self.target, None
        if self.cards.pins:
            pin = self.cards.pinned(target, files, head, _ABOUT)
        files = self._finished(files, head, pin)
        changed, removed = _changes(files, head), _outdated(head, {file.path for file in files if file.sent})
        if self.tag is not None:
            _check_tag(target, self.tag, head.commit if not (changed or removed) else None)
        pushed = Pushed(head.commit)
        if changed or removed:
            pushed = target.commit(changed, removed, head, self.title, branch, create_pr)
            _verify(target, changed, removed, pushed.commit)
        last = pushed.commit
        if self.cards.pins and pin is None:
            pin = pushed.commit
            files, last = self._pin(files, pushed.commit, pushed.reference or branch)
        if self.tag is not None:
            _tag(target, self.tag, last)
        return PublishReport(
            repo_id=target.repo_id,
            files=files,
            changed=[file.path for file in changed],
            removed=removed,
            commit=last,
            parent=head.commit,
            pull_request=pushed.pull_request,
            tag=self.tag,
            url=f"{target.api.endpoint}/{target.repo_id}",
            form=self.cards.form.kind,
            why=self.cards.form.told,
            pinned=pin,
        )

    def _finished(self, files: list[PublishFile], head: Head, pin: str | None) -> list[PublishFile]:
        merged = self.cards.merge(self.target, files, head, pin)
        return with_manifest(merged, self.cards.folder, self.target.repo_id, self.sign)

    def _pin(self, files: list[PublishFile], commit: str, branch: str | None) -> tuple[list[PublishFile], str]:
        """Sends the card again, with snippets that load a commit; returns the files and the commit that holds them."""
        target = self.target
        try:
            head = target.head(commit)
            files = self._finished(files, head, commit)
            changed = _changes(files, head)
            pushed = target.commit(changed, [], head, f"{self.title}: name the commit of the code", branch, False)
            target.read_back(changed, [], pushed.commit)
        except PublishError as error:
            message = (
                f"{target.repo_id} holds the new commit {commit[:12]}, which is whole, but its card does not name the "
                f"commit of the code: {error}; publish again to add that"
            )
            raise type(error)(message, committed=True) from None
        return files, pushed.commit


def _changes(files: list[PublishFile], head: Head) -> list[PublishFile]:
    return [file for file in files if file.sent and head.files.get(file.path) not in file.hashes()]


def _outdated(head: Head, sent: set[str]) -> list[str]:
    """Paths of weights, code and results in the repository that the push replaces; a mixture of two does not load."""
    kinds: list[Any] = list(MODELS)
    old = {SIGNATURE, RESULTS, *(name for kind in kinds for name in bundle_files(kind))}
    return sorted(path for path in head.files if path not in sent and (_OLD_WEIGHTS.fullmatch(path) or path in old))


def _check_tag(target: PushTarget, tag: str, commit: str | None) -> None:
    named = target.tagged(tag)
    if named is not None and named != commit:
        raise PublishError(
            f"the tag {tag} of {target.repo_id} names the commit {named[:12]} already, so nothing was sent; choose "
            "another"
        )


def _verify(target: PushTarget, changed: list[PublishFile], removed: list[str], commit: str) -> None:
    try:
        target.read_back(changed, removed, commit)
    except PublishError as error:
        message = f"{target.repo_id} holds the new commit {commit[:12]}, which could not be checked: {error}"
        raise type(error)(message, committed=True) from None


def _tag(target: PushTarget, tag: str, commit: str) -> None:
    try:
        target.tag(tag, commit)
    except PublishError as error:
        message = f"{target.repo_id} holds the new commit {commit[:12]}, without the tag {tag}: {error}"
        raise type(error)(message, committed=True) from None


__all__ = ["Push", "open_branch", "open_repository"]
