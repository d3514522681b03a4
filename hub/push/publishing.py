"""Publishing of a model in one commit, which is read back and compared; if it fails, nothing is published."""

import logging
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, without `as`

from ...data.argument_names import argument
from ..bundle.bundle_check import check_bundle
from ..checkpoints import read_config
from .benchmark_results import with_results
from .errors import PublishError, explain
from .local_paths import find_paths
from .manifest import with_manifest
from .preparing import prepare
from .published_form import BUNDLE
from .pushing import Push, open_branch, open_repository
from .report import PublishReport
from .secret_scan import redacted_logs
from .target import PushTarget

logger = logging.getLogger("vithub")


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
    bundle: bool = False,
    endpoint: bool = False,
    sign: str | Path | None = None,
    check: bool = True,
    token: str | None = None,
) -> PublishReport:
    """Publishes the folder of a run, or of a saved model, as a model repository on the Hub.

    A model that transformers can express with the same answers is sent as its own class there, which needs no code; any
    other one is sent with the code that `config.json` names, and the card says why. The folder stays as it is. Only
    files that belong to a model are sent: configuration, safetensors weights, image processor, card, recipe, metrics,
    pictures, code where it is needed, and a manifest of them. In recipe, metrics and card, local paths are replaced by
    names; the folder's own recipe keeps them for resuming. Paths that remain in a user's texts are reported in a
    warning.

    Everything is sent in one commit; if the repository already holds the files, no commit is made. If the connection or
    the Hub fails, the push is retried without sending large files twice and without a second commit if the first one
    arrived. Afterwards the files are downloaded and their hashes compared. Where a run's model needs code, a further
    commit changes the card alone, whose snippets then load the commit of the code.

    Args:
        folder: Folder with `config.json` and `model.safetensors`.
        repo_id: Name of the repository, "user/name"; the repository is created if it does not exist.
        private: Whether to make the repository private; an existing public repository is an error.
        revision: Branch to push to, created if it does not exist; None means main.
        create_pr: Whether to open a pull request instead of changing the branch; works for others' repositories too.
        tag: Tag to create for the commit, or None.
        message: Commit message; None writes a default one.
        dry_run: Whether to report only what would be sent, without any request to the Hub.
        native: Whether to require transformers' own class, and to fail where it cannot express the model.
        bundle: Whether to send the code beside the weights even if transformers has the same model.
        endpoint: Whether to publish a `handler.py` too, with which an inference endpoint of the Hub answers requests.
        sign: PEM file of an Ed25519 private key that signs the manifest; None signs nothing.
        check: Whether to load the folder first in a process without this package and compare the outputs, which takes
            some seconds.
        token: Access token; None uses the token of the login or of HF_TOKEN.

    Raises:
        CheckpointError: The folder holds no complete model.
        InexpressibleError: `native` is set and transformers has no such model; the features are listed.
        ValueError: Options contradict each other, such as `native` and `bundle`.
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
        files, cards = prepare(
            folder, repo_id, Path(staging) / "native", native=native, bundle=bundle, endpoint=endpoint,
            token=target.token,
        )  # fmt: skip
        paths = find_paths(files)
        for found in paths:
            logger.warning("%s", found)
        if note := _lack_of_processor(folder):
            logger.warning("%s", note)
        if dry_run:
            files = with_manifest(files, folder, repo_id, sign)
            return PublishReport(
                repo_id, files, tag=tag, dry_run=True, paths=paths, form=cards.form.kind, why=cards.form.told
            )
        if check and cards.form.kind == BUNDLE:
            check_bundle(folder)
        target.identify(to_own=not create_pr)
        created = open_repository(target, private, create_pr)
        try:
            branch = open_branch(target, revision)
            head = target.head(branch)
            if cards.is_run:
                files = with_results(files, folder, target)
            push = Push(target, cards, sign, message or f"Publish with vithub {version('vithub')}", tag)
            report = push.send(files, head, branch, create_pr)
            return replace(report, created=created, paths=paths)
        except PublishError as error:
            if created and not error.committed:
                raise type(error)(f"{error} ({repo_id} was made and holds no model yet)") from None
            raise
        except OSError as error:
            raise explain(error, repo_id, "publishing", target.token) from None


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


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise PublishError(f"{repo_id!r} is no name of a repository; one looks like user/name") from None
    if repo_id.count("/") != 1:
        raise PublishError(f"{repo_id!r} lacks the user or organisation; a repository's name looks like user/name")


__all__ = ["publish"]
