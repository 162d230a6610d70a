"""Runs a real Prometheus by the configuration that ships, and asks it."""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import running
from .redis_server import free_port

FOLDER = Path(__file__).parents[2] / "dashboards" / "prometheus"
_PATIENCE = 10  # seconds

# No proxy: whatever the environment says about proxies does not hold for this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the series that *expression* has now: labels and values."""
        result = self._get("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def value(self, expression: str) -> float:
        """Return the only value of *expression*; 0 where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} has {len(found)} series"
        return found[0][1] if found else 0.0

    def exemplars(self, expression: str) -> list[Any]:
        """Return the exemplars of the last hour."""
        return self._get("query_exemplars", query=expression, start="2000-01-01T00:00:00Z", end="2100-01-01T00:00:00Z")

    def rules(self) -> list[Mapping[str, Any]]:
        """Return the rules that are loaded."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        with _open(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=_PATIENCE) as response:
            return json.load(response)["data"]


def find_binary() -> str | None:
    """Return the path of the server program; None where there is none."""
    return shutil.which("prometheus")


@contextmanager
def running_prometheus(binary: str, folder: Path, target: str) -> Generator[Prometheus]:
    """Run a Prometheus that scrapes *target*, every second, in place of the collector that the configuration names."""
    configuration = (FOLDER / "prometheus.yaml").read_text()
    for shipped, ours in (("collector:8889", target), ("scrape_interval: 5s", "scrape_interval: 1s")):
        assert shipped in configuration
        configuration = configuration.replace(shipped, ours)
    (folder / "prometheus.yaml").write_text(configuration)
    for rules in FOLDER.glob("*.rules.yaml"):
        shutil.copy(rules, folder)
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with running(command, folder / "prometheus.log", ready="Server is ready to receive web requests"):
        yield Prometheus(f"http://{address}")
