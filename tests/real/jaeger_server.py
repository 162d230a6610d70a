"""A real Jaeger on free ports, and what its query API says about the traces that were sent to it."""

import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .process import poll, running

_PATIENCE = 10  # seconds; what is sent straight to Jaeger is found at the first look, what a collector passes on later
_MODULE = Path(__file__).with_name("jaeger") / "go.mod"

# Port 0 everywhere: the kernel chooses, and the log says what. Ports chosen by us could be taken by then.
# No batch processor and no queue: once an export was acknowledged, a query finds its spans.
# No traces of its own: it would look for a collector on port 4317, and delay its end by 10 s where there is none.
_CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
  telemetry:
    metrics: {level: none}
    logs: {encoding: json}
extensions:
  jaeger_storage:
    backends: {memory: {memory: {max_traces: 10000}}}
  jaeger_query:
    storage: {traces: memory}
    enable_tracing: false
    http: {endpoint: "127.0.0.1:0"}
    grpc: {endpoint: "127.0.0.1:0"}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:0"}
      http: {endpoint: "127.0.0.1:0"}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
"""

Json: TypeAlias = dict[str, Any]

# No proxy: whatever the environment says about proxies does not hold for this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Jaeger:
    """The addresses of a running Jaeger, each as `http://host:port`, and its query API."""

    otlp_grpc: str
    """What `OTEL_EXPORTER_OTLP_ENDPOINT` takes for the protocol `grpc`."""
    otlp_http: str
    """The same for `http/protobuf`; an exporter made in code wants `/v1/traces` after it."""
    query: str

    def search(self, service: str, **tags: object) -> list[Json]:
        """Return the traces in which one span of `service` has all `tags`, as they are now.

        A tag whose name has dots goes in as `**{"error.type": "timeout"}`.
        """
        wanted = {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}
        query = urllib.parse.urlencode({"service": service, "tags": json.dumps(wanted), "limit": 1000})
        return self._get(f"/api/traces?{query}")

    def traces(self, service: str, *, count: int = 1, **tags: object) -> list[Json]:
        """Return what `search` finds, as soon as it is at least `count` traces.

        Raises:
            AssertionError: it stays fewer.
        """
        return _await(lambda: self.search(service, **tags), count, f"traces of {service} with {tags}")

    def trace(self, trace_id: int, *, spans: int = 1) -> Json:
        """Return the trace, as soon as it has at least so many spans.

        Raises:
            AssertionError: it stays fewer.
        """
        hexadecimal = f"{trace_id:032x}"

        def look() -> list[Json]:
            try:
                return self._get(f"/api/traces/{hexadecimal}")
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 404:  # its first span is still on the way
                        return []
                raise

        def found() -> list[Json]:
            return [span for trace in look() for span in trace["spans"]]

        _await(found, spans, f"spans in trace {hexadecimal}")
        return look()[0]

    def _get(self, path: str) -> list[Json]:
        with _open(self.query + path, timeout=_PATIENCE) as response:
            return json.load(response)["data"] or []


def tags(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span (or of one of its events, whose list is called `fields`) as a dict."""
    return {tag["key"]: tag["value"] for tag in span.get("tags", span.get("fields", ()))}


def find_binary() -> Path | None:
    """Return the Jaeger that JAEGER_BINARY names, else the one that `make jaeger` built, else the one in PATH."""
    if named := os.environ.get("JAEGER_BINARY"):
        return Path(named)
    version = re.search(r"jaegertracing/jaeger (v\S+)", _MODULE.read_text())
    assert version, _MODULE
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "overcoat" / f"jaeger-{version[1]}"
    in_path = shutil.which("jaeger")
    return built if built.exists() else Path(in_path) if in_path else None


@contextmanager
def running_jaeger(binary: Path, folder: Path) -> Generator[Jaeger]:
    """Run a Jaeger that keeps its traces in memory, with its configuration and log in `folder`."""
    config = folder / "jaeger.yaml"
    config.write_text(_CONFIG)
    with running([binary, "--config", config], folder / "jaeger.log", ready="Everything is ready") as log:
        yield _addresses(log)


def _addresses(log: str) -> Jaeger:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]

    def said(component: str, message: str, field: str) -> str:
        (address,) = (
            line[field] for line in lines if (line.get("otelcol.component.id"), line["msg"]) == (component, message)
        )
        return f"http://{address}"

    return Jaeger(
        otlp_grpc=said("otlp", "Starting GRPC server", "endpoint"),
        otlp_http=said("otlp", "Starting HTTP server", "endpoint"),
        query=said("jaeger_query", "Query server started", "http_addr"),
    )


def _await(look: Callable[[], list[Json]], count: int, what: str) -> list[Json]:
    last: list[Json] = []

    def enough() -> list[Json] | None:
        nonlocal last
        last = look()
        return last if len(last) >= count else None

    found = poll(enough, seconds=_PATIENCE)
    assert found is not None, f"Jaeger has {len(last)} instead of {count} {what}"
    return found
