"""A Vertex AI job service on loopback: Google's REST protocol, with what goes wrong there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

# google.rpc.Status of REST answers: HTTP code and its name.
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


@dataclass
class FakeVertex:
    """The service's memory.

    Attributes:
        url: Where it listens.
        jobs: What was created, by name.
        refusals: HTTP codes with which the next creations are answered.
        loses: How many creations succeed without an answer reaching the client.
        drops: Whether those connections are closed, instead of answered with 503.
        states: What a job's state is at each look, the last one from then on; a number is the
            HTTP code of a look that is refused.
        error: ``(code, message)`` of a failed job.
    """

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    loses: int = 0
    drops: bool = False
    states: list[str | int] = field(default_factory=lambda: ["JOB_STATE_SUCCEEDED"])
    error: tuple[int, str] | None = None

    def seen(self, name: str) -> dict[str, Any] | int:
        """Return a job as it is now, or the code of a refusal, and go on."""
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, int):
            return state
        self.jobs[name]["state"] = state
        if state == "JOB_STATE_FAILED" and self.error is not None:
            self.jobs[name]["error"] = {"code": self.error[0], "message": self.error[1]}
        return self.jobs[name]


@contextmanager
def fake_vertex() -> Iterator[FakeVertex]:
    """Serve it."""
    service = FakeVertex()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parent = urlsplit(self.path).path.removeprefix("/v1/").removesuffix("/customJobs")
            if service.refusals:
                self._refuse(service.refusals.pop(0))
                return
            name = f"{parent}/customJobs/{len(service.jobs) + 1}"
            job = {**content, "name": name, "state": "JOB_STATE_PENDING"}
            service.jobs[name] = job
            if service.loses:
                service.loses -= 1
                if service.drops:
                    self.connection.close()
                else:
                    self._refuse(503)
            else:
                self._answer(200, job)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            name = parts.path.removeprefix("/v1/")
            if name.endswith("/customJobs"):
                key, _, value = parse_qs(parts.query)["filter"][0].partition("=")
                label = key.removeprefix("labels.")
                found = [job for job in service.jobs.values() if job["labels"][label] == value]
                self._answer(200, {"customJobs": found})
            elif name in service.jobs:
                found = service.seen(name)
                if isinstance(found, int):
                    self._refuse(found)
                else:
                    self._answer(200, found)
            else:
                self._refuse(404)

        def _refuse(self, code: int) -> None:
            error = {"code": code, "message": f"told {code}", "status": _STATUS[code]}
            self._answer(code, {"error": error})

        def _answer(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
