"""What `overcoat dashboards export` does: dashboards, rules and Jaeger's menu, for an application of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

SERVICE = "overcoat-demo"
"""The `service.name` in the files as they ship."""
GRAFANA = "http://localhost:3000"
"""Where the files as they ship have Grafana."""

_WANTED = ("grafana/*.json", "jaeger/ui.json", "prometheus/*.yaml")


def export(folder: Path, *, service: str, grafana: str) -> list[Path]:
    """Write the files into *folder* and return their paths; what is there already must be of an earlier export.

    Args:
        folder: Made where there is none.
        service: The application's `service.name`, for the searches in Jaeger's menu.
        grafana: The URL of Grafana, for the links from Jaeger.

    Raises:
        OSError: A file cannot be written.
    """
    written: list[Path] = []
    for source in _shipped():
        text = source.read_text(encoding="utf-8")
        if source.name == "ui.json":
            text = text.replace(f"service={SERVICE}&", f"service={quote(service, safe='')}&")
            text = text.replace(GRAFANA, grafana.rstrip("/"))
        path = folder / source.parent.name / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _shipped() -> Iterator[Path]:
    here = Path(__file__)
    # In a wheel they lie in the package; in a checkout, where they are made.
    root = next(path for path in (here.with_name("dashboards_data"), here.parents[2] / "dashboards") if path.is_dir())
    for pattern in _WANTED:
        yield from sorted(root.glob(pattern))
