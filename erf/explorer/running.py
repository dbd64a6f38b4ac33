"""A running explorer: its server in a thread of its own, bound to this machine."""

import html
import re
import secrets
import socket
import threading
import time
from types import TracebackType

import uvicorn

from erf.errors import InputError
from erf.explorer.guard import Guard
from erf.explorer.server import Routes
from erf.explorer.session import Session

_HOST = "127.0.0.1"

_SHORTEST = 16
"""Least number of characters of a secret."""

_MOST_AT_ONCE = 256
"""Requests at a time; more are told to try again."""

_PATIENCE = 10.0
"""Seconds to wait for the server to start or to end."""


class Explorer:
    """An explorer that is running; `stop` ends it, and so does the end of a `with` block.

    In a notebook it shows itself as a frame.

    Args:
        session: what is explored.
        port: port of this machine; 0 for a free one.
        token: secret in the address; '' for a random one.
        in_notebook: whether pages of this machine, such as a notebook, may show the explorer in a frame.

    Raises:
        InputError: the port is taken, or the secret is too short.
    """

    def __init__(self, session: Session, port: int = 0, token: str = "", in_notebook: bool = False) -> None:
        if token and not re.fullmatch(rf"[A-Za-z0-9_-]{{{_SHORTEST},}}", token):
            raise InputError(f"token of {len(token)} characters; expected {_SHORTEST} or more letters and digits")
        self._session, self._token = session, token or secrets.token_urlsafe(24).replace("-", "_")
        try:
            self._socket = socket.create_server((_HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"port {port} of this machine cannot be used: {reason}; choose another `port`") from error
        self.port: int = self._socket.getsockname()[1]
        guard = Guard(Routes(session).app(), self._token, in_notebook)
        guard.listen_on(self.port)
        config = uvicorn.Config(
            guard,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_AT_ONCE,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="erf-explorer-server", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + _PATIENCE
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Address of the page, with the secret."""
        return f"http://{_HOST}:{self.port}/{self._token}/"

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End server and computation."""
        self._server.should_exit = True
        self._thread.join(_PATIENCE)
        self._socket.close()
        if self._session.worker.is_alive:
            self._session.close()

    def wait(self) -> None:
        """Wait until the explorer is stopped, by another thread or by Ctrl-C."""
        try:
            while self.is_running:
                self._thread.join(0.2)
        except KeyboardInterrupt:
            self.stop()

    def __enter__(self) -> "Explorer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Explorer of {self._session.title} at {self.url}"

    def _repr_html_(self) -> str:
        title = html.escape(f"explorer of {self._session.title}", quote=True)
        return f'<iframe src="{self.url}" title="{title}" width="100%" height="800" style="border:0"></iframe>'
