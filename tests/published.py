"""The files of a publication as someone downloads them, without a Hub."""

from pathlib import Path

from vithub.hub.push.manifest import with_manifest
from vithub.hub.push.preparing import prepare


def written(folder, target, repo_id="ada/model", sign=None, **options):
    """Writes what `publish` would send into a new folder `target`; `options` are those of `prepare`."""
    files, _ = prepare(Path(folder), repo_id, target.with_name(f"{target.name}-native"), **options)
    for file in with_manifest(files, Path(folder), repo_id, sign):
        if file.sent:
            (target / file.path).parent.mkdir(parents=True, exist_ok=True)
            (target / file.path).write_bytes(file.read())
    return target


__all__ = ["written"]
