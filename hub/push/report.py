"""Report of a push to the Hub, or of a dry run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .files import PublishFile
from .published_form import AS_SAVED
from .secret_scan import Finding


@dataclass(frozen=True)
class PublishReport:
    """Result of a push, or of a dry run.

    Args:
        repo_id: Name of the repository, "user/name".
        files: All files of the folder, with size and the reason why each is or is not sent.
        changed: Paths of the files that differ from those in the repository before the push.
        removed: Paths of the repository's files that the push removes: weights and code that it replaces.
        commit: Commit that holds the files; None after a dry run.
        parent: Commit that the push was based on; None after a dry run.
        created: Whether the push created the repository.
        pull_request: URL of the pull request, or None if none was opened.
        tag: Tag that names the commit, or None.
        url: URL of the model's page; None after a dry run.
        dry_run: Whether this is a dry run: nothing was sent and no request was made to the Hub.
        paths: Local paths found in the text files, with file and line.
        form: Form of the model: "native", "bundle" or "as saved" (see `PublishedForm`).
        why: Form and the reason for it, as a line for a person.
        pinned: Commit that the card's snippets load, where the model needs code; None otherwise.
    """

    repo_id: str
    files: list[PublishFile]
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    commit: str | None = None
    parent: str | None = None
    created: bool = False
    pull_request: str | None = None
    tag: str | None = None
    url: str | None = None
    dry_run: bool = False
    paths: list[Finding] = field(default_factory=list)
    form: str = AS_SAVED
    why: str = ""
    pinned: str | None = None

    @property
    def sent(self) -> list[PublishFile]:
        """Files that belong in the repository."""
        return [file for file in self.files if file.sent]

    @property
    def nothing_to_do(self) -> bool:
        """Whether the repository held all files before, so that no commit was made."""
        return not (self.dry_run or self.changed or self.removed)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        files = [{name: getattr(file, name) for name in ("path", "size", "sent", "why")} for file in self.files]
        plain = {name: value for name, value in asdict(self).items() if name not in ("files", "paths")}
        return {
            **plain,
            "files": files,
            "paths": [str(found) for found in self.paths],
            "nothing_to_do": self.nothing_to_do,
        }


__all__ = ["PublishReport"]
