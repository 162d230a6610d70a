"""A misbehaving OpenAI-compatible provider: real HTTP on loopback, doing what a script tells it to."""

import json
import re
import socket
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self, cast

from .steps import Received, Step, answer, require_step

__all__ = ["Provider"]

_MODEL_IN_PATH = re.compile(r"/(?:deployments|models)/([^/:]+)")
_CHARACTERS_PER_TOKEN = 4

_Take = Callable[[str, str, Mapping[str, str], bytes], tuple[Received, Step]]


class Provider:
    """Answers HTTP on 127.0.0.1 as a chat completion API would, and fails as one does, by a script.

    ```python
    with Provider() as provider:
        provider.script(rate_limited(retry_after=0.1), dropped(), answer("At last."))
        client = openai.AsyncOpenAI(base_url=provider.url, api_key="any")
        ...
        assert len(provider) == 3
    ```

    Each request takes one step: of its model's script, else of the common one, else the default. Every POST is
    answered, whatever its path; answers are not streamed (`raw` can play server-sent events). It serves each
    connection by a thread, keeps connections alive, and stops at once, slow answers included. Where a function that is
    the default raises, the connection is dropped and the traceback is on stderr.

    Attributes:
        default: What a request gets that no script is left for: a step, or a function of the request that makes one. By
            default an answer whose usage follows from the prompt: a token for every four characters of its JSON.
    """

    def __init__(self, default: Step | Callable[[Received], Step] | None = None) -> None:
        self.default: Step | Callable[[Received], Step] = default or _plain
        self._scripts = defaultdict[str | None, deque[Step]](deque)  # by model; None is the common one
        self._requests: list[Received] = []
        self._lock = Lock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The `base_url` for a client.

        Raises:
            RuntimeError: If the provider is not running.
        """
        if self._server is None:
            raise RuntimeError("The provider has no URL before start() and after close().")
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[Received]:
        """What has arrived so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def pending(self) -> int:
        """How many scripted steps no request has taken yet."""
        with self._lock:
            return sum(map(len, self._scripts.values()))

    def __len__(self) -> int:
        """How many requests have arrived so far."""
        return len(self.requests)

    def __bool__(self) -> bool:
        """A provider is one before its first request, too."""
        return True

    def script(self, *steps: Step, model: str | None = None) -> None:
        """Append to the common script, or to that of the requests for one model.

        Args:
            steps: One for each request to come.
            model: As it arrives: litellm takes its own `openai/` off.

        Raises:
            TypeError: If one of them is no step; then none is appended.
        """
        for place, step in enumerate(steps):
            require_step(f"steps[{place}]", step)
        with self._lock:
            self._scripts[model].extend(steps)

    def reset(self) -> None:
        """Forget the requests and the scripts, and count from 1 again; the default stays."""
        with self._lock:
            self._requests.clear()
            self._scripts.clear()

    def start(self) -> Self:
        """Listen on a free port of the loopback interface.

        Raises:
            RuntimeError: If it is listening already.
        """
        if self._server is not None:
            raise RuntimeError(f"The provider is running already, at {self.url}.")
        self._server = _Server(self._take)
        return self

    def close(self) -> None:
        """Drop what is under way and free the port and the threads; closing twice is once."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, method: str, target: str, headers: Mapping[str, str], content: bytes) -> tuple[Received, Step]:
        path, _, query = target.partition("?")
        body = _parsed(content)
        model = _model(path, body)
        with self._lock:
            received = Received(len(self._requests) + 1, method, path, query, headers, body, model, time.monotonic())
            self._requests.append(received)
            script = self._scripts[model] or self._scripts[None]
            step = script.popleft() if script else self.default
        # A default is called outside the lock, so that it may look at the provider.
        return received, step if isinstance(step, Step) else require_step("default(...)", step(received))


class _Server(ThreadingTCPServer):
    """Accepts and answers until closed.

    It is no `HTTPServer`: that one looks its own name up in the DNS when it binds.
    """

    request_queue_size = 1024

    def __init__(self, take: _Take) -> None:
        self._closing = Event()
        self._connections: dict[socket.socket, Thread] = {}
        self._lock = Lock()
        super().__init__(("127.0.0.1", 0), partial(_Handler, take, self._closing))
        self._acceptor = Thread(target=self._accept, name="overcoat-provider", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        # serve_forever() would poll for its own end, and make every close() wait for the next look.
        while not self._closing.is_set():
            self.handle_request()

    def close(self) -> None:
        self._closing.set()
        socket.create_connection(cast("tuple[str, int]", self.server_address)).close()  # wakes the acceptor
        self._acceptor.join()
        self.server_close()
        with self._lock:
            threads = list(self._connections.values())
            for connection in self._connections:
                with suppress(OSError):  # its client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        # The mixin's own keeps only threads that are no daemons, and those would hold up an exit without close().
        thread = Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            super().shutdown_request(request)
            del self._connections[request]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that time out or are cancelled hang up on us: that is what they are tested for.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, take: _Take, closing: Event, *connection: Any) -> None:
        self._take = take
        self._closing = closing
        super().__init__(*connection)

    def do_POST(self) -> None:
        if "transfer-encoding" in self.headers:
            self.send_error(411, explain="The scripted provider reads bodies of an announced length only.")
            return
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        received, step = self._take(self.command, self.path, headers, content)
        closed = self._closing.wait(step.delay) if step.delay else False
        self.close_connection = self.close_connection or closed or step.connection != "kept"
        if closed or step.connection == "dropped":
            return
        answered = step.body(received)
        self.send_response_only(step.status)
        own = {
            "content-type": "application/json",
            "content-length": str(len(answered)),
            "x-request-id": received.request_id,
        }
        for name, value in {**own, **step.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answered if step.connection == "kept" else answered[: len(answered) // 2])


def _plain(received: Received) -> Step:
    body: Any = received.body
    messages: Any = cast("dict[str, Any]", body).get("messages", body) if isinstance(body, dict) else body
    return answer(prompt_tokens=len(json.dumps(messages)) // _CHARACTERS_PER_TOKEN)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


def _model(path: str, body: Any) -> str | None:
    named = cast("dict[str, Any]", body).get("model") if isinstance(body, dict) else None
    if isinstance(named, str):
        return named
    found = _MODEL_IN_PATH.search(path)
    return found and found[1]
