"""Publishing of a model in one commit, which is read back and compared; if it fails, nothing is published."""

import logging
import re
import tempfile
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, without `as`
from safetensors import SafetensorError

from ...data.argument_names import argument
from ..bundle.bundle_check import check_bundle
from ..bundle.code_bundle import bundle_files
from ..bundle.remote_code import remote_classes
from ..card.merging import read_old_card
from ..card.model_card import CARD, published_card, read_text
from ..checkpoints import INDEX, WEIGHTS, read_config
from ..conversion.convert import convert
from ..conversion.model_classes import MODELS
from . import endpoint_handler
from .errors import PublishError, SecretError, explain, is_disk_full
from .files import HANDLER, PublishFile, check_model_folder, select_files
from .local_paths import find_paths, replaced_files
from .manifest import with_manifest
from .secret_scan import Finding, redacted_logs, scan
from .signing import SIGNATURE
from .target import Head, PushTarget

logger = logging.getLogger("vithub")
# Weights that a new push replaces, even if the new ones have other names.
_OLD_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
# Files that a native model takes from the converted folder; the others come from the run.
_OF_THE_MODEL = ("config.json", WEIGHTS, INDEX, "preprocessor_config.json")


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

    @property
    def sent(self) -> list[PublishFile]:
        """Files that belong in the repository."""
        return [file for file in self.files if file.sent]

    @property
    def nothing_to_do(self) -> bool:
        """Whether the repository already held all files."""
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


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    message: str | None = None,
    dry_run: bool = False,
    native: bool = False,
    endpoint: bool = False,
    sign: str | Path | None = None,
    check: bool = True,
    token: str | None = None,
) -> PublishReport:
    """Publishes the folder of a run, or of a saved model, as a model repository on the Hub.

    Only files that belong to a model are sent: configuration, safetensors weights, image processor, card, recipe,
    metrics, pictures, the code that `config.json` names, and a manifest of them. In recipe, metrics and card, local
    paths are replaced by names; the folder's own recipe keeps them for resuming. Paths that remain in a user's texts
    are reported in a warning. Everything is sent in one commit; if the repository already holds the files, no commit
    is made. If the connection or the Hub fails, the push is retried without sending large files twice and without a
    second commit if the first one arrived. Afterwards the files are downloaded and their hashes compared.

    Args:
        folder: Folder with `config.json` and `model.safetensors`.
        repo_id: Name of the repository, "user/name"; the repository is created if it does not exist.
        private: Whether to make the repository private; an existing public repository is an error.
        revision: Branch to push to, created if it does not exist; None means main.
        create_pr: Whether to open a pull request instead of changing the branch; works for others' repositories too.
        tag: Tag to create for the commit, or None.
        message: Commit message; None writes a default one.
        dry_run: Whether to report only what would be sent, without any request to the Hub.
        native: Whether to publish the model as transformers' own class, which needs no remote code.
        endpoint: Whether to publish a `handler.py` too, with which an inference endpoint of the Hub answers requests.
        sign: PEM file of an Ed25519 private key that signs the manifest; None signs nothing.
        check: Whether to load the folder first in a process without this package and compare the outputs, which takes
            some seconds.
        token: Access token; None uses the token of the login or of HF_TOKEN.

    Raises:
        CheckpointError: The folder holds no complete model.
        InexpressibleError: `native` is set and transformers has no such model; the features are listed.
        BundleError: The folder does not load without this package.
        SecretError: A file seems to hold a secret; the message names it.
        StaleParentError: Someone else pushed in the meantime; the message names both commits.
        PublishError: The push failed for another reason, explained in one line; the repository is unchanged unless the
            message names the new commit.
    """
    if create_pr and (revision or tag):
        raise ValueError(
            f"{argument('create_pr')} goes to main and takes no {argument('revision' if revision else 'tag')}"
        )
    _check_name(repo_id)
    folder = Path(folder).expanduser()
    target = PushTarget(repo_id, token)
    with tempfile.TemporaryDirectory(prefix="vithub-publish-") as staging, redacted_logs(target.token):
        made = _endpoint_files(folder) if endpoint else {}
        files, architecture = _checked_files(folder, target, Path(staging) / "native" if native else None, made)
        paths = find_paths(files)
        for found in paths:
            logger.warning("%s", found)
        if note := _lack_of_processor(folder):
            logger.warning("%s", note)
        if dry_run:
            files = with_manifest(files, folder, repo_id, sign)
            return PublishReport(repo_id, files, tag=tag, dry_run=True, paths=paths)
        if check and not native and _has_our_code(folder):
            check_bundle(folder)
        target.identify(to_own=not create_pr)
        created = _open(target, private, create_pr)
        try:
            branch = _branch(target, revision)
            head = target.head(branch)
            files = _keep_online_card(target, files, head, folder, architecture)
            files = with_manifest(files, folder, repo_id, sign)
            report = _push(target, files, head, branch, create_pr, tag, message)
            return replace(report, created=created, paths=paths)
        except PublishError as error:
            if created and not error.committed:
                raise type(error)(f"{error} ({repo_id} was made and holds no model yet)") from None
            raise
        except OSError as error:
            raise explain(error, repo_id, "publishing", target.token) from None


def _endpoint_files(folder: Path) -> dict[str, bytes]:
    """Content of the files of an inference endpoint by path."""
    content = Path(endpoint_handler.__file__).read_bytes()
    if (folder / HANDLER).is_file() and (folder / HANDLER).read_bytes() != content:
        raise PublishError(f"{folder} holds a {HANDLER} of its own, which {argument('endpoint')} would replace")
    return {HANDLER: content}


def _checked_files(
    folder: Path, target: PushTarget, native: Path | None, made: dict[str, bytes]
) -> tuple[list[PublishFile], str | None]:
    """Files and class of `_files`, after checking that no file holds a secret."""
    try:
        files, architecture = _files(folder, target.repo_id, native, made)
        _refuse_secrets(files, target)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise explain(error, target.repo_id, "preparing the files", target.token) from None
        raise
    return files, architecture


def _refuse_secrets(files: list[PublishFile], target: PushTarget) -> None:
    """Raises a `SecretError` where a file, as it is sent, looks like it holds a secret."""
    findings = scan(files, target.token)
    if findings:
        raise SecretError(
            f"nothing was sent: {'; '.join(map(str, findings))}. Remove it, and revoke it if it was shared"
        )


def _lack_of_processor(folder: Path) -> str | None:
    """Warning for a folder that does not say how an image becomes pixels; None where it does.

    The configuration of a timm model states the preprocessing itself.
    """
    files = ("preprocessor_config.json", "processor_config.json")
    if any((folder / name).is_file() for name in files) or "architecture" in read_config(folder):
        return None
    return (
        f"{folder} holds no preprocessor_config.json: whoever loads the published model has to find out how its images "
        "were resized and normalised"
    )


def _has_our_code(folder: Path) -> bool:
    ours = {config_class.model_type for config_class in MODELS}
    return bool(remote_classes(folder)) and read_config(folder).get("model_type") in ours


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise PublishError(f"{repo_id!r} is no name of a repository; one looks like user/name") from None
    if repo_id.count("/") != 1:
        raise PublishError(f"{repo_id!r} lacks the user or organisation; a repository's name looks like user/name")


def _files(
    folder: Path, repo_id: str, native: Path | None, made: dict[str, bytes]
) -> tuple[list[PublishFile], str | None]:
    """All files with the decision whether each is sent, and the class of transformers for a native model."""
    if native is None:
        return select_files(folder, _card(folder, repo_id) | replaced_files(folder) | made), None
    check_model_folder(folder)
    architecture = convert(folder, native, to="transformers").architecture
    model = [file for file in select_files(native) if file.path in _OF_THE_MODEL]
    names = {file.path for file in model}
    rest = [
        replace(file, sent=False, why="not needed by transformers' own class")
        if file.sent and (file.path in _OF_THE_MODEL or file.why in ("code of the model", "part of the weights"))
        else file
        for file in select_files(folder, _card(folder, repo_id, architecture) | replaced_files(folder) | made)
        if file.path not in names
    ]
    return sorted(model + rest, key=lambda file: file.path), architecture


def _card(folder: Path, repo_id: str, native: str | None = None, old_text: str | None = None) -> dict[str, bytes]:
    """Content of the card, with snippets that load the repository; empty for a folder with neither run nor card."""
    if _is_run(folder):
        return {CARD: published_card(folder, repo_id, native, old_text).encode()}
    if not (folder / CARD).is_file():
        return {}
    text = read_text(folder / CARD)
    for location in set(re.findall(r"""(?:from_pretrained\(|pipeline\([^()\n]*,\s*)"([^"\n]+)"\)""", text)):
        text = text.replace(f'"{location}"', f'"{repo_id}"')
    if native:
        text = re.sub(r"^import vithub\b.*\n", "", text, flags=re.MULTILINE)
    return {CARD: text.encode()}


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "recipe.yaml", "metrics.json"))


def _keep_online_card(
    target: PushTarget, files: list[PublishFile], head: Head, folder: Path, native: str | None
) -> list[PublishFile]:
    """Files whose card keeps the text written on the Hub if nobody wrote into the folder's card."""
    card = next((file for file in files if file.path == CARD and file.sent), None)
    if card is None or CARD not in head.files or head.files[CARD] in card.hashes():
        return files
    text = target.read(CARD, head.commit).decode("utf-8", errors="replace")
    online, ours = read_old_card(text), read_old_card(card.read().decode())
    kept = f"it is replaced, and stays in the commit {head.commit[:12]}"
    if online is None or not online.is_ours:
        logger.warning("the card of %s was not written by vithub; %s", target.repo_id, kept)
        return files
    if ours is None or not _is_run(folder) or online.written == ours.written:
        return files
    if ours.written != ("", {}):
        logger.warning("the card of %s has text that the folder's lacks; %s", target.repo_id, kept)
        return files
    content = _card(folder, target.repo_id, native, text)[CARD]
    merged = replace(card, size=len(content), content=content)
    _refuse_secrets([merged], target)
    return [merged if file is card else file for file in files]


def _push(
    target: PushTarget,
    files: list[PublishFile],
    head: Head,
    branch: str | None,
    create_pr: bool,
    tag: str | None,
    message: str | None,
) -> PublishReport:
    sent = [file for file in files if file.sent]
    changed = [file for file in sent if head.files.get(file.path) not in file.hashes()]
    removed = _outdated(head, {file.path for file in sent})
    if tag is not None:
        _check_tag(target, tag, head.commit if not (changed or removed) else None)
    commit, pull_request = head.commit, None
    if changed or removed:
        title = message or f"Publish with vithub {version('vithub')}"
        pushed = target.commit(changed, removed, head, title, branch, create_pr)
        commit, pull_request = pushed.commit, pushed.pull_request
        _verify(target, changed, removed, commit)
    if tag is not None:
        _tag(target, tag, commit)
    return PublishReport(
        repo_id=target.repo_id,
        files=files,
        changed=[file.path for file in changed],
        removed=removed,
        commit=commit,
        parent=head.commit,
        pull_request=pull_request,
        tag=tag,
        url=f"{target.api.endpoint}/{target.repo_id}",
    )


def _open(target: PushTarget, private: bool, create_pr: bool) -> bool:
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


def _branch(target: PushTarget, revision: str | None) -> str | None:
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


def _outdated(head: Head, sent: set[str]) -> list[str]:
    """Paths of weights and code in the repository that the push replaces; a mixture of two models does not load."""
    kinds: list[Any] = list(MODELS)
    old = {SIGNATURE, *(name for kind in kinds for name in bundle_files(kind))}
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


__all__ = ["PublishReport", "publish"]
