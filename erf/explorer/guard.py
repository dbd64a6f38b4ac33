"""Guard of the explorer's server: only a page of its own, opened by whoever knows the secret, is answered."""

from collections.abc import Awaitable, Callable, MutableMapping
from hmac import compare_digest
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors {}"
)

_NOTEBOOKS = "http://localhost:* http://127.0.0.1:*"

_DEFAULT = 80
"""Port that browsers leave out of a host's name."""

_LARGEST = 64 * 1024
"""Bytes of a request."""


class Guard:
    """Application around another one that answers only requests to its own host, from its own page, with the secret.

    A page of another site can send requests to this machine, and by a changed DNS entry even under another host's name;
    it knows neither the secret in the path nor the host's name, so both are checked, and the origin.

    Args:
        app: the application, which sees paths without the secret.
        token: the secret, first part of every path.
        in_notebook: whether pages of this machine may show the explorer in a frame.
    """

    def __init__(self, app: App, token: str, in_notebook: bool = False) -> None:
        self._app, self._prefix = app, f"/{token}"
        policy = _POLICY.format(_NOTEBOOKS if in_notebook else "'none'")
        self._headers = [*SAFE, (b"content-security-policy", policy.encode())]
        self.hosts: frozenset[str] = frozenset()
        """Names by which the server may be called, known once its port is."""

    def listen_on(self, port: int) -> None:
        names = ("127.0.0.1", "localhost")
        self.hosts = frozenset([f"{name}:{port}" for name in names] + [name for name in names if port == _DEFAULT])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http" or not self._is_allowed(scope):
            await self._refuse(scope, send)
            return
        inner = dict(scope, path=scope["path"][len(self._prefix) :] or "/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(inner, receive, guarded)

    def _is_allowed(self, scope: Scope) -> bool:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        if len(hosts) != 1 or hosts[0].decode("latin-1") not in self.hosts:
            return False
        if any(origin.decode("latin-1") not in {f"http://{host}" for host in self.hosts} for origin in origins):
            return False
        if int(b"".join(headers.get(b"content-length", [b"0"])) or b"0") > _LARGEST:
            return False
        path = scope["path"]
        own, rest = path[: len(self._prefix)], path[len(self._prefix) :]
        return compare_digest(own.encode(), self._prefix.encode()) and rest.startswith("/")

    async def _refuse(self, scope: Scope, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"text/plain"), *self._headers]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"not found"})
