"""Model card as it is published: with snippets that load the repository, and text that was written into it there."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from ..card.loading_code import LoadingCode
from ..card.merging import read_old_card
from ..card.model_card import CARD, published_card, read_text
from .errors import refuse_secrets
from .files import CODE, PublishFile
from .published_form import BUNDLE, PublishedForm
from .target import Head, PushTarget

_PINNED = re.compile(r'trust_remote_code=True, revision="([0-9a-f]{40})"')

logger = logging.getLogger("vithub")


class Cards:
    """Card of one publication, written again once the commit that it names is known.

    Args:
        folder: Folder of the model.
        repo_id: Name of the repository, "user/name".
        form: Form in which the model is published.
    """

    def __init__(self, folder: Path, repo_id: str, form: PublishedForm) -> None:
        self.folder, self.repo_id, self.form = folder, repo_id, form
        self.is_run = all((folder / name).is_file() for name in ("config.json", "recipe.yaml", "metrics.json"))

    @property
    def pins(self) -> bool:
        """Whether the snippets of the card run code, so that they have to name the commit that holds it."""
        return self.is_run and self.form.kind == BUNDLE

    def add(
        self, files: list[PublishFile], revision: str | None = None, old_text: str | None = None
    ) -> list[PublishFile]:
        """Returns the files with the card of a run, or with the folder's own card made to load the repository.

        Args:
            files: Files of the folder, as they are decided on.
            revision: Commit that the snippets load; None is not known yet.
            old_text: Card whose hand-written text is kept; None is the card in the folder.
        """
        if self.is_run:
            text = published_card(
                self.folder, self.repo_id, self.form.architecture, old_text, self._code(files, revision)
            )
        elif (self.folder / CARD).is_file():
            text = self._own()
        else:
            return files
        content = text.encode()
        card = PublishFile(CARD, len(content), True, "model card", content)
        return sorted([card, *(file for file in files if file.path != CARD)], key=lambda file: file.path)

    def merge(
        self, target: PushTarget, files: list[PublishFile], head: Head, revision: str | None = None
    ) -> list[PublishFile]:
        """Returns the files with a card that keeps the text written on the Hub if nobody wrote into the folder's card.

        Args:
            target: Repository.
            files: Files to publish.
            head: State of the branch.
            revision: Commit that the snippets load; None is not known yet.

        Raises:
            PublishError: The card on the Hub cannot be read.
            SecretError: The text on the Hub seems to hold a secret.
        """
        files = self.add(files, revision) if revision is not None else files
        card = _card_of(files)
        if card is None or CARD not in head.files or head.files[CARD] in card.hashes():
            return files
        text = _online(target, head)
        online, ours = read_old_card(text), read_old_card(card.read().decode())
        kept = f"it is replaced, and stays in the commit {head.commit[:12]}"
        if online is None or not online.is_ours:
            logger.warning("the card of %s was not written by vithub; %s", target.repo_id, kept)
            return files
        if ours is None or not self.is_run or online.written == ours.written:
            return files
        if ours.written != ("", {}):
            logger.warning("the card of %s has text that the folder's lacks; %s", target.repo_id, kept)
            return files
        files = self.add(files, revision, text)
        refuse_secrets([file for file in files if file.path == CARD], target.token)
        return files

    def pinned(self, target: PushTarget, files: list[PublishFile], head: Head, ignored: set[str]) -> str | None:
        """Commit of the repository that holds the model's files already; None if they have to be sent first.

        It is the one that the card on the Hub names, if that holds them, else the head of the branch.

        Args:
            target: Repository.
            files: Files to publish.
            head: State of the branch.
            ignored: Paths of files that tell of the others, such as the card.
        """
        wanted = [file for file in files if file.sent and file.path not in ignored]
        hashes = {file.path: file.hashes() for file in wanted}
        if not _holds(head.files, hashes):
            return None
        found = _PINNED.search(_online(target, head)) if CARD in head.files else None
        if found is not None and found[1] != head.commit:
            named = target.find_commit(found[1])
            if named is not None and _holds(named.files, hashes):
                return named.commit
        return head.commit

    def _code(self, files: list[PublishFile], revision: str | None) -> LoadingCode | None:
        if self.form.kind != BUNDLE:
            return None
        hashes = {file.path: file.hashes()[0] for file in files if file.sent and file.why == CODE}
        return LoadingCode(hashes, self.form.feature, revision)

    def _own(self) -> str:
        """Text of a card that no run wrote, with the folder's name replaced by that of the repository."""
        text = read_text(self.folder / CARD)
        for location in set(re.findall(r"""(?:from_pretrained\(|pipeline\([^()\n]*,\s*)"([^"\n]+)"\)""", text)):
            text = text.replace(f'"{location}"', f'"{self.repo_id}"')
        if self.form.architecture:
            text = re.sub(r"^import vithub\b.*\n", "", text, flags=re.MULTILINE)
        return text


def _card_of(files: list[PublishFile]) -> PublishFile | None:
    return next((file for file in files if file.path == CARD and file.sent), None)


def _online(target: PushTarget, head: Head) -> str:
    return target.read(CARD, head.commit).decode("utf-8", errors="replace")


def _holds(held: Mapping[str, str], hashes: Mapping[str, tuple[str, str]]) -> bool:
    return all(held.get(path) in either for path, either in hashes.items())


__all__ = ["Cards"]
