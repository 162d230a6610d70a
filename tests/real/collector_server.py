"""Runs the collector's configuration that ships, as it is, in the Jaeger binary, which is a collector, too."""

import re
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .process import running
from .redis_server import free_port

if TYPE_CHECKING:
    from .jaeger_server import Jaeger

# No proxy: whatever the environment says about proxies does not hold for this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

_ACCEPTED = re.compile(r"^otelcol_receiver_accepted_spans_total\S* (\S+)", re.MULTILINE)

CONFIG = Path(__file__).parents[2] / "otel-collector.yaml"


@dataclass(frozen=True)
class Collector:
    """The addresses of a running collector."""

    otlp_grpc: str
    """What `OTEL_EXPORTER_OTLP_ENDPOINT` takes for the protocol `grpc`."""
    otlp_http: str
    prometheus: str
    """Where Prometheus scrapes, as `host:port`."""
    own_metrics: str
    """What it says about itself, as a URL."""

    def accepted_spans(self) -> int:
        """Return how many spans it has taken from applications."""
        with _open(self.own_metrics, timeout=10) as response:
            text = response.read().decode()
        return sum(int(float(count)) for count in _ACCEPTED.findall(text))


@contextmanager
def running_collector(binary: Path, folder: Path, jaeger: "Jaeger", *, sample: int) -> Generator[Collector]:
    """Run a collector that sends to *jaeger* what it keeps, and of the ordinary traces *sample* percent."""
    grpc, http, prometheus, health, own = (f"127.0.0.1:{free_port()}" for _ in range(5))
    settings = {
        "OTELCOL_OTLP_GRPC": grpc,
        "OTELCOL_OTLP_HTTP": http,
        "OTELCOL_PROMETHEUS": prometheus,
        "OTELCOL_HEALTH": health,
        "OTELCOL_OWN_METRICS": own.rpartition(":")[2],
        "OTELCOL_JAEGER": jaeger.otlp_grpc.removeprefix("http://"),
        "OTELCOL_SAMPLE": str(sample),
        "OTELCOL_DECISION_WAIT": "2s",
    }
    command = [binary, "--config", CONFIG]
    with running(command, folder / "collector.log", ready="Everything is ready", environment=settings):
        yield Collector(f"http://{grpc}", f"http://{http}", prometheus, f"http://{own}/metrics")
