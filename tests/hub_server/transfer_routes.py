"""The two ways of large files: Git LFS, and Xet's content-addressed storage."""

import hashlib
import json
import re
import time
from typing import Any

from .hub_routes import find, ranged
from .server import Answer, Request, Route

_ID = r"([^/]+/[^/]+)"
_KINDS = {"": "model", "datasets/": "dataset", "spaces/": "space"}


def _batch(request: Request) -> Answer:
    prefix, repo_id = request.groups
    found = find(request, _KINDS[prefix], repo_id)
    if isinstance(found, Answer):
        return found
    if request.token is None or request.token.role != "write":
        return Answer.error(403, f"you are not allowed to write to {repo_id}")
    objects: list[dict[str, Any]] = []
    for wanted in request.json()["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in request.hub.store.contents:
            upload = {"href": f"{request.hub.url}/lfs/{wanted['oid']}", "header": {}}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{request.hub.url}/lfs-verify/{wanted['oid']}"}}
        objects.append(entry)
    return Answer.of({"transfer": "basic", "objects": objects})


def _upload(request: Request) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != request.groups[0]:
        return Answer.error(400, "the content has another SHA-256")
    request.hub.store.keep(request.body, large=True)
    return Answer()


def _verify(request: Request) -> Answer:
    held = request.hub.store.contents.get(request.groups[0])
    if held is None or len(held) != request.json()["size"]:
        return Answer.error(404, "no such object")
    return Answer()


def _xet_token(request: Request) -> Answer:
    kind, repo_id, right, _ = request.groups
    found = find(request, kind, repo_id)
    if isinstance(found, Answer):
        return found
    if right == "write" and (request.token is None or request.token.role != "write"):
        return Answer.error(403, f"you are not allowed to write to {repo_id}")
    token, expiry = f"xet-{right}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": request.hub.url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expiry)}
    return Answer.of({"accessToken": token, "exp": expiry, "casUrl": request.hub.url}, **headers)


def _allowed(request: Request, right: str) -> bool:
    given = request.headers.get("authorization", "")
    return given in {f"Bearer xet-{right}", "Bearer xet-write"}


def _xorb(request: Request) -> Answer:
    if not _allowed(request, "write"):
        return Answer.error(401, "no token")
    return Answer.of({"was_inserted": request.hub.xet.add_xorb(request.groups[0], request.body)})


def _shard(request: Request) -> Answer:
    if not _allowed(request, "write"):
        return Answer.error(401, "no token")
    request.hub.xet.add_shard(request.body)
    return Answer.of({"result": 1})


def _reconstruction(request: Request) -> Answer:
    if not _allowed(request, "read"):
        return Answer.error(401, "no token")
    found = request.hub.xet.reconstruction(request.groups[0], request.headers.get("range", ""), request.hub.url)
    if found is None:
        return Answer.error(404, "no such file")
    return Answer.of(found) if found else Answer.error(416, "beyond the end")


def _data(request: Request) -> Answer:
    xorb = request.hub.xet.xorbs.get(request.groups[0])
    return Answer.error(404, "no such xorb") if xorb is None else ranged(request, xorb.data, {})


def _absent(request: Request) -> Answer:
    """What the client tries first and does without."""
    return Answer(404, json.dumps({"error": "not found"}).encode())


TRANSFER_ROUTES: list[Route] = [
    (name, method, re.compile(path), function)
    for name, method, path, function in (
        ("lfs-batch", "POST", rf"/(datasets/|spaces/)?{_ID}\.git/info/lfs/objects/batch", _batch),
        ("lfs-upload", "PUT", r"/lfs/([0-9a-f]{64})", _upload),
        ("lfs-verify", "POST", r"/lfs-verify/([0-9a-f]{64})", _verify),
        ("xet-token", "GET", rf"/api/(model|dataset|space)s/{_ID}/xet-(read|write)-token/([^/]+)", _xet_token),
        ("xorb", "POST", r"/v1/xorbs/default/([0-9a-f]{64})", _xorb),
        ("shard", "POST", r"/v1/shards", _shard),
        ("reconstruction", "GET", r"/v1/reconstructions/([0-9a-f]{64})", _reconstruction),
        ("xorb-data", "GET", r"/xorb-data/([0-9a-f]{64})", _data),
        ("optional", "GET", r"/api/agent-harnesses", _absent),
        ("xet-absent", "GET", r"/v1/chunks/.+|/v2/.+", _absent),
        ("xet-absent", "POST", r"/v2/.+|/v1/(telemetry|xorb-grants|xorb-commits).*", _absent),
    )
]

__all__ = ["TRANSFER_ROUTES"]
