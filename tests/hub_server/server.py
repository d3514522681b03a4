"""The HTTP server: reads a request, finds its route, lets a fault strike, answers."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import Fault, FaultPlan
from .repositories import Store, Token
from .xet_store import XetStore

SLOW_SECONDS = 0.1


@dataclass
class Request:
    """What a route gets."""

    hub: "LoopbackHub"
    method: str
    route: str
    groups: tuple[str, ...]
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: bytes
    token: Token | None

    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body or b"{}")
        return content


@dataclass
class Answer:
    """What a route gives."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # of the content that a HEAD stands for

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "Answer":
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    @classmethod
    def error(cls, status: int, message: str, code: str | None = None) -> "Answer":
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        return cls(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json"} | headers)


Route = tuple[str, str, "re.Pattern[str]", Callable[[Request], Answer]]


class LoopbackHub:
    """The server on a free port of 127.0.0.1, with `store`, the `requests` it got, and those `unknown` to it."""

    def __init__(self) -> None:
        from .hub_routes import ROUTES
        from .transfer_routes import TRANSFER_ROUTES

        self.routes: list[Route] = [*TRANSFER_ROUTES, *ROUTES]
        self.store, self.xet, self.faults = Store(), XetStore(), FaultPlan()
        self.requests: list[tuple[str, str, str]] = []  # route, method, path
        self.unknown: list[str] = []
        self.crashes: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}  # called once at the next request of a route
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "LoopbackHub":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, route: str, kind: int | str, times: int | None = None, after: int = 0) -> Fault:
        """Injects a fault; see `Fault`."""
        assert route == "*" or route in self.route_names(), f"no route {route!r}"
        return self.faults.add(Fault(route, kind, times, after))

    def route_names(self) -> set[str]:
        return {name for name, *_ in self.routes}

    def asked(self, route: str) -> int:
        """How many requests a route got."""
        return sum(name == route for name, *_ in self.requests)

    def reset(self) -> None:
        """Forgets faults and requests; the store stays."""
        self.faults.clear()
        self.requests.clear()
        self.before.clear()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do(self) -> None:
        parts = urlsplit(self.path)
        found = self._find_route(parts.path)
        if found is None:
            self.hub.unknown.append(f"{self.command} {self.path}")
            self._body()
            self._send(Answer.error(404, f"the loopback Hub has no route {self.command} {parts.path}"))
            return
        name, groups, function = found
        self.hub.requests.append((name, self.command, self.path))
        if (hook := self.hub.before.pop(name, None)) is not None:
            hook()
        fault = self.hub.faults.take(name)
        if fault == "cut" and self._cut_request():
            return
        body = self._body()
        if isinstance(fault, int):
            self._send(Answer.error(fault, f"injected fault {fault} at {name}", _CODES.get(fault)))
            return
        token = self._token()
        if isinstance(token, Answer):
            self._send(token)
            return
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.hub, self.command, name, groups, parse_qs(parts.query), headers, body, token)
        try:
            undone = fault == "cut" and self.command not in ("GET", "HEAD")
            answer = Answer(200, bytes(200)) if undone else function(request)
        except Exception as error:  # noqa: BLE001  told to the test
            self.hub.crashes.append(f"{name}: {type(error).__name__}: {error}")
            answer = Answer.error(500, f"the loopback Hub failed: {error}")
        self._send(answer, fault if isinstance(fault, str) else None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815

    def _find_route(self, path: str) -> tuple[str, tuple[str, ...], Callable[[Request], Answer]] | None:
        for name, method, pattern, function in self.hub.routes:
            if method == self.command and (match := pattern.fullmatch(path)):
                return name, tuple(unquote(group or "") for group in match.groups()), function
        return None

    def _token(self) -> Token | Answer | None:
        """Whose request it is; an answer where the token is unknown. Xet's requests bear its own tokens."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not given or given.startswith("xet-"):
            return None
        if given not in self.hub.store.tokens:
            return Answer.error(401, "Invalid credentials in Authorization header")
        return self.hub.store.tokens[given]

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _cut_request(self) -> bool:
        """Reads half of the request and breaks off; False where there is no body to cut."""
        length = int(self.headers.get("Content-Length", 0))
        if not length and "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return False
        self.rfile.read(length // 2)
        self._break()
        return True

    def _break(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        linger = b"\x01\0\0\0\0\0\0\0"  # on, 0 seconds: a reset, as of a lost connection
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer, fault: str | None = None) -> None:
        length = len(answer.content) if answer.length is None else answer.length
        try:
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            if fault in ("cut", "lost") and self.command == "HEAD":
                self._break()  # in the middle of the headers
                return
            self.end_headers()
            if self.command == "HEAD":
                return
            half = length // 2 if fault else length
            self.wfile.write(answer.content[:half])
            if fault == "slow":
                self.wfile.flush()
                time.sleep(SLOW_SECONDS)
            if fault in ("cut", "lost"):
                self._break()
                return
            self.wfile.write(answer.content[half:])
        except OSError:  # the client went away
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True


# What the Hub's own errors of these kinds carry.
_CODES = {404: "RepoNotFound"}

__all__ = ["Answer", "LoopbackHub", "Request", "Route"]
