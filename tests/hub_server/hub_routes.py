"""The Hub's own routes: who is asking, repositories, trees, commits, references, files."""

import base64
import json
import re
from typing import Any
from urllib.parse import unquote

import yaml

from .repositories import Blob, Repository, StaleParentError, git_oid
from .server import Answer, Request, Route

_ID = r"([^/]+/[^/]+)"
_API = rf"/api/(model|dataset|space)s/{_ID}"
_PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_LARGE = (".safetensors", ".png", ".jpg", ".parquet", ".bin", ".pt", ".pth", ".pkl")


def find(request: Request, kind: str, repo_id: str, write: bool = False) -> Repository | Answer:
    """The repository, or the error that the Hub gives to those who may not see it or not write."""
    repository, token = request.hub.store.repositories.get((kind, repo_id)), request.token
    if repository is None or (repository.private and (token is None or not token.owns(repository.namespace))):
        if token is None:
            return Answer.error(401, "Invalid username or password.", "RepoNotFound")
        return Answer.error(404, "Repository not found", "RepoNotFound")
    if write and (token is None or token.role != "write" or not token.owns(repository.namespace)):
        status = 401 if token is None else 403
        return Answer.error(status, f"you are not allowed to write to {repo_id}")
    return repository


def _whoami(request: Request) -> Answer:
    token = request.token
    if token is None:
        return Answer.error(401, "Invalid username or password.")
    organisations = [{"type": "org", "name": name} for name in token.organisations]
    access = {"accessToken": {"displayName": "test", "role": token.role}}
    return Answer.of({"type": "user", "name": token.user, "orgs": organisations, "auth": access})


def _create(request: Request) -> Answer:
    wanted, token = request.json(), request.token
    if token is None:
        return Answer.error(401, "Invalid username or password.")
    kind, namespace = wanted.get("type") or "model", wanted.get("organization") or token.user
    repo_id = f"{namespace}/{wanted['name']}"
    if token.role != "write" or not token.owns(namespace):
        message = f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
        return Answer.error(403, message)
    url = f"{request.hub.url}/{_PREFIX[kind]}{repo_id}"
    if request.hub.store.create(kind, repo_id, wanted.get("visibility") == "private") is None:
        conflict = Answer.of({"error": f"You already created this {kind} repo", "url": url}, 409)
        conflict.headers["X-Error-Message"] = f"You already created this {kind} repo"
        return conflict
    return Answer.of({"url": url, "name": repo_id})


def _delete(request: Request) -> Answer:
    wanted, token = request.json(), request.token
    kind = wanted.get("type") or "model"
    namespace = wanted.get("organization") or (token.user if token else "")
    found = find(request, kind, f"{namespace}/{wanted['name']}", write=True)
    if isinstance(found, Answer):
        return found
    del request.hub.store.repositories[kind, found.id]
    return Answer()


def _validate_yaml(request: Request) -> Answer:
    text = request.json()["content"]
    match = re.match(r"---\n(.*?)\n---\s*\n", text, re.DOTALL)
    errors = []
    try:
        data = yaml.safe_load(match[1]) if match else {}
        if not isinstance(data, dict):
            errors.append("metadata must be a mapping")
        elif not isinstance(data.get("license", ""), str | list):
            errors.append('"license" must be a string')
    except yaml.YAMLError as error:
        errors.append(f"YAML: {error}")
    content = {"errors": [{"message": text} for text in errors], "warnings": []}
    return Answer.of(content, 400 if errors else 200)


def _revision(request: Request) -> tuple[Repository, str, Any] | Answer:
    kind, repo_id, revision = request.groups[:3]
    found = find(request, kind, repo_id)
    if isinstance(found, Answer):
        return found
    commit = found.resolve(revision or "main")
    if commit is None:
        return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return found, revision or "main", commit


def _lfs(blob: Blob) -> dict[str, Any]:
    return {"oid": blob.sha256, "sha256": blob.sha256, "size": blob.size, "pointerSize": 134}


def _info(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    repository, _, commit = found
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(commit.files.items()):
        entry: dict[str, Any] = {"rfilename": path}
        if "blobs" in request.query:
            entry |= {"size": blob.size, "blobId": blob.oid} | ({"lfs": _lfs(blob)} if blob.large else {})
        siblings.append(entry)
    card = commit.files.get("README.md")
    front = re.match(r"---\n(.*?)\n---", request.hub.store.contents[card.sha256].decode(), re.DOTALL) if card else None
    data = json.loads(json.dumps(yaml.safe_load(front[1]), default=str)) if front else None
    content = {"_id": "1", "id": repository.id, "sha": commit.oid, "private": repository.private, "siblings": siblings}
    content |= {"tags": (data or {}).get("tags") or [], "cardData": data, "downloads": 0, "likes": 0}
    content |= {"pipeline_tag": (data or {}).get("pipeline_tag"), "library_name": (data or {}).get("library_name")}
    return Answer.of(content)


def _entry(request: Request, path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
    if blob.large:
        entry["lfs"] = _lfs(blob)
        if (hash_ := request.hub.xet.hash_of(blob.sha256)) is not None:
            entry["xetHash"] = hash_
    return entry


def _tree(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    below = request.groups[3].strip("/") if len(request.groups) > 3 else ""
    deep = request.query.get("recursive", [""])[0].lower() in ("true", "1")
    files = {p: b for p, b in found[2].files.items() if not below or p == below or p.startswith(f"{below}/")}
    if below and not files:
        return Answer.error(404, f"{below} does not exist", "EntryNotFound")
    entries, folders = [], set()
    for path, blob in sorted(files.items()):
        inner = path[len(below) :].lstrip("/") if below else path
        parents = inner.split("/")[:-1]
        for depth in range(1, len(parents) + 1 if deep else min(len(parents), 1) + 1):
            folders.add("/".join([below, *parents[:depth]] if below else parents[:depth]))
        if deep or not parents:
            entries.append(_entry(request, path, blob))
    entries += [{"type": "directory", "path": path, "size": 0, "oid": git_oid(path.encode())} for path in folders]
    return Answer.of(sorted(entries, key=lambda entry: str(entry["path"])))


def _paths_info(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    if request.headers.get("content-type", "").startswith("application/json"):
        paths = request.json()["paths"]
    else:
        pairs = [pair.partition("=") for pair in request.body.decode().split("&")]
        paths = [unquote(value.replace("+", " ")) for name, _, value in pairs if name == "paths"]
    return Answer.of([_entry(request, path, found[2].files[path]) for path in paths if path in found[2].files])


def _preupload(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    if isinstance(refused := _may_commit(request, found[0]), Answer):
        return refused
    files = []
    for file in request.json()["files"]:
        large = file["path"].endswith(_LARGE) or file["size"] > 10 << 20
        entry = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if (blob := found[2].files.get(file["path"])) is not None:
            entry["oid"] = blob.sha256 if blob.large else blob.oid
        files.append(entry)
    return Answer.of({"files": files})


def _may_commit(request: Request, repository: Repository) -> Answer | None:
    """Whoever can read with a token that writes may open a pull request; the others must own the namespace."""
    if "create_pr" in request.query and request.token is not None and request.token.role == "write":
        return None
    refused = find(request, repository.kind, repository.id, write=True)
    return refused if isinstance(refused, Answer) else None


def _commit(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    repository, revision, commit = found
    if refused := _may_commit(request, repository):
        return refused
    if commit.oid == revision or f"refs/tags/{revision}" in repository.refs:
        return Answer.error(400, "a commit needs a branch")
    lines = [json.loads(line) for line in request.body.decode().splitlines() if line.strip()]
    header = lines[0]["value"]
    if missing := [line["value"]["path"] for line in lines[1:] if _is_missing(request, line)]:
        return Answer.error(400, f"large files were not uploaded: {', '.join(missing)}")
    assert request.token is not None
    try:
        made, number = repository.commit(
            revision, header["summary"], header.get("description", ""), request.token.user,
            lambda files: _apply(request, lines[1:], files), header.get("parentCommit"), "create_pr" in request.query,
        )  # fmt: skip
    except StaleParentError:
        return Answer.error(412, "A commit has happened since. Please refresh and try again.")
    base = f"{request.hub.url}/{_PREFIX[repository.kind]}{repository.id}"
    content = {"success": True, "commitOid": made.oid, "commitUrl": f"{base}/commit/{made.oid}"}
    return Answer.of(content | ({"pullRequestUrl": f"{base}/discussions/{number}"} if number else {}))


def _is_missing(request: Request, line: dict[str, Any]) -> bool:
    return line["key"] == "lfsFile" and _large_size(request, line["value"]["oid"]) is None


def _large_size(request: Request, sha256: str) -> int | None:
    if sha256 in request.hub.store.contents:
        return len(request.hub.store.contents[sha256])
    return request.hub.xet.size_of(sha256)


def _apply(request: Request, lines: list[dict[str, Any]], files: dict[str, Blob]) -> None:
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = request.hub.store.keep(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            size = _large_size(request, value["oid"])
            assert size is not None
            files[value["path"]] = request.hub.store.blob(value["oid"], size, large=True)
        elif key == "deletedFile":
            del files[value["path"]]
        else:
            raise ValueError(f"unknown operation {key}")


def _refs(request: Request) -> Answer:
    found = find(request, *request.groups)
    if isinstance(found, Answer):
        return found
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    names = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for ref, oid in found.refs.items():
        prefix = next(prefix for prefix in names if ref.startswith(prefix))
        kinds[names[prefix]].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid})
    if "include_prs" not in request.query:
        del kinds["pullRequests"]
    return Answer.of(kinds)


def _commits(request: Request) -> Answer:
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    date = "2024-01-01T00:00:00.000Z"
    return Answer.of(
        [
            {"id": c.oid, "title": c.title, "message": c.message, "authors": [{"user": c.author}], "date": date}
            for c in found[0].history(found[1])
        ]
    )


def _branch(request: Request) -> Answer:
    kind, repo_id, name = request.groups
    found = find(request, kind, repo_id, write=True)
    if isinstance(found, Answer):
        return found
    ref = f"refs/heads/{name}"
    if request.method == "DELETE":
        found.refs.pop(ref)
        return Answer()
    start = found.resolve(request.json().get("startingPoint") or "main")
    if start is None:
        return Answer.error(404, "Invalid rev id", "RevisionNotFound")
    if ref in found.refs:
        return Answer.error(409, "Reference already exists")
    found.refs[ref] = start.oid
    return Answer()


def _tag(request: Request) -> Answer:
    kind, repo_id, revision = request.groups
    found = find(request, kind, repo_id, write=True)
    if isinstance(found, Answer):
        return found
    if request.method == "DELETE":
        found.refs.pop(f"refs/tags/{revision}")
        return Answer()
    commit, ref = found.resolve(revision), f"refs/tags/{request.json()['tag']}"
    if commit is None:
        return Answer.error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    if ref in found.refs:
        return Answer.error(409, "Tag reference exists already")
    found.refs[ref] = commit.oid
    return Answer()


def _resolve(request: Request) -> Answer:
    prefix, repo_id, revision, path = request.groups
    request.groups = (prefix.rstrip("s/") or "model", repo_id, revision)
    found = _revision(request)
    if isinstance(found, Answer):
        return found
    repository, _, commit = found
    blob = commit.files.get(path)
    if blob is None:
        missing = Answer.error(404, f"{path} does not exist on {revision}", "EntryNotFound")
        missing.headers["X-Repo-Commit"] = commit.oid
        return missing
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.sha256 if blob.large else blob.oid}"'}
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if blob.large:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if (hash_ := request.hub.xet.hash_of(blob.sha256)) is not None:
            link = f"{request.hub.url}/api/{repository.kind}s/{repository.id}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": hash_, "Link": f'<{link}>; rel="xet-auth"'}
    if request.method == "HEAD":
        return Answer(200, b"", headers, blob.size)
    content = request.hub.store.contents.get(blob.sha256)
    return ranged(request, request.hub.xet.content(blob.sha256) if content is None else content, headers)


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """The whole content, or the part that the request's `Range` names."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Answer(200, content, headers)
    start, end = int(match[1]), min(int(match[2] or len(content) - 1), len(content) - 1)
    if start >= len(content):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
    part = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return Answer(206, content[start : end + 1], headers | part)


def _route(name: str, method: str, path: str, function: Any) -> Route:
    return name, method, re.compile(path), function


ROUTES: list[Route] = [
    _route("whoami", "GET", "/api/whoami-v2", _whoami),
    _route("create", "POST", "/api/repos/create", _create),
    _route("delete", "DELETE", "/api/repos/delete", _delete),
    _route("validate-yaml", "POST", "/api/validate-yaml", _validate_yaml),
    _route("info", "GET", rf"{_API}(?:/revision/([^/]+))?", _info),
    _route("tree", "GET", rf"{_API}/tree/([^/]+)(/.*)?", _tree),
    _route("paths-info", "POST", rf"{_API}/paths-info/([^/]+)", _paths_info),
    _route("preupload", "POST", rf"{_API}/preupload/([^/]+)", _preupload),
    _route("commit", "POST", rf"{_API}/commit/([^/]+)", _commit),
    _route("refs", "GET", rf"{_API}/refs", _refs),
    _route("commits", "GET", rf"{_API}/commits/([^/]+)", _commits),
    _route("branch", "POST", rf"{_API}/branch/([^/]+)", _branch),
    _route("branch-delete", "DELETE", rf"{_API}/branch/([^/]+)", _branch),
    _route("tag", "POST", rf"{_API}/tag/([^/]+)", _tag),
    _route("tag-delete", "DELETE", rf"{_API}/tag/([^/]+)", _tag),
    _route("resolve", "HEAD", rf"/(datasets/|spaces/)?{_ID}/resolve/([^/]+)/(.+)", _resolve),
    _route("download", "GET", rf"/(datasets/|spaces/)?{_ID}/resolve/([^/]+)/(.+)", _resolve),
]

__all__ = ["ROUTES", "find", "ranged"]
