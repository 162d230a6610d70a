"""What one looks for in Jaeger: each search is attributes of one span, since Jaeger matches spans one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from overcoat.dashboards import GRAFANA, SERVICE
from overcoat.telemetry import names


class Search(NamedTuple):
    """A search: its name in the menu, the attributes as texts, and the least duration, such as "10s"."""

    label: str
    tags: Mapping[str, str]
    duration: str = ""

    @property
    def query(self) -> str:
        """The query string, for Jaeger's page /search and for its API /api/traces alike."""
        given = {"service": SERVICE, "lookback": "1h", "limit": "100"}
        if self.tags:
            given["tags"] = json.dumps(self.tags, separators=(",", ":"))
        if self.duration:
            given["minDuration"] = self.duration
        return urlencode(given, quote_via=quote)


SEARCHES = (
    Search("Failed", {names.OUTCOME: "error"}),
    Search("Refused by us", {names.OUTCOME: "refused"}),
    Search("Cancelled", {names.OUTCOME: "cancelled"}),
    Search("Retried", {names.RETRIED: "true"}),
    Search("Expensive", {names.COST_TIER: "high"}),
    Search("Slow: 10 s and more", {}, duration="10s"),
    Search("Answered by the cache", {names.OUTCOME: "ok", names.CACHE_RESULT: "hit"}),
    Search("Answered with a stale answer", {names.OUTCOME: "ok", names.CACHE_RESULT: "stale"}),
    Search("Shared one inference", {names.CACHE_RESULT: "coalesced"}),
    Search("Fell back to another model", {names.ROLE: "fallback"}),
    Search("Asked again after a rejected answer", {names.ROLE: "reask"}),
    Search("Hedged", {names.ROLE: "hedge"}),
    Search("Opened a circuit", {names.CIRCUIT_STATE: "open"}),
    Search("Over budget", {names.OUTCOME: "refused", names.ERROR_TYPE: "budget_exceeded"}),
    Search("Over the deadline", {names.OUTCOME: "error", names.ERROR_TYPE: "deadline_exceeded"}),
)


def ui() -> dict[str, Any]:
    """Return the configuration of Jaeger's UI: the searches as a menu, telling attributes first, links to Grafana."""
    items = [{"label": each.label, "url": f"/search?{each.query}", "anchorTarget": "_self"} for each in SEARCHES]
    about = [{"label": "Website", "url": "https://www.jaegertracing.io/"}]  # a menu of one's own replaces Jaeger's
    span = "from=#{startTime | epoch_micros_to_date_iso}&to=#{endTime | epoch_micros_to_date_iso}"
    model = "gen_ai.request.model"
    return {
        "topTagPrefixes": ["error", "overcoat.", "gen_ai.usage.", "gen_ai."],
        "menu": [{"label": "overcoat", "items": items}, {"label": "About Jaeger", "items": about}],
        "linkPatterns": [
            {"type": "traces", "url": f"{GRAFANA}/d/overcoat-overview?{span}", "text": "The dashboard at that time"},
            {
                "type": "tags",
                "key": model,
                "url": f"{GRAFANA}/d/overcoat-overview?var-model=#{{{model}}}",
                "text": f"The dashboard of #{{{model}}}",
            },
        ],
    }
