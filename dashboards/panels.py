"""The kinds of panels that the dashboards are made of, in one look: each knows its size, its unit and its query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT, _WIDTH = 8, 8  # of 24 columns
_STAT_HEIGHT, _STAT_WIDTH = 4, 4


def number(title: str, query: str, unit: str, description: str, *, decimals: int | None = None) -> stat.Panel:
    """Return a panel with one number, over the whole range."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(_STAT_HEIGHT)
        .span(_STAT_WIDTH)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(query, "").instant())
    )
    return panel if decimals is None else panel.decimals(decimals)


def graph(
    title: str,
    queries: Mapping[str, str],
    unit: str,
    description: str,
    *,
    stacked: bool = False,
    exemplars: bool = False,
    width: int = _WIDTH,
) -> timeseries.Panel:
    """Return a panel with lines over time; *queries* by their legends, in which `{{label}}` is a label's value."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .height(_HEIGHT)
        .span(width)
        .fill_opacity(25 if stacked else 8)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(show_legend=True).placement(kinds.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    for position, (legend, query) in enumerate(queries.items()):
        target = _query(query, legend, position)
        panel = panel.with_target(target.exemplar(exemplar=True) if exemplars else target)
    return panel


def heat(title: str, query: str, unit: str, description: str) -> heatmap.Panel:
    """Return a panel that shows where a histogram's values lie over time."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .height(_HEIGHT)
        .span(_WIDTH)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .with_target(_query(query, "{{le}}").format(PromQueryFormat.HEATMAP))
    )


def rows(title: str, by: str, columns: Mapping[str, tuple[str, str]], description: str) -> table.Panel:
    """Return a table with a row for each value of the label *by*; *columns* are queries and units by their headings."""
    panel = table.Panel().title(title).description(description).datasource(DATASOURCE).height(_HEIGHT + 2).span(24)
    renamed: dict[str, str] = {}
    for position, (heading, (query, unit)) in enumerate(columns.items()):
        panel = panel.with_target(_query(query, "", position).instant().format(PromQueryFormat.TABLE))
        renamed[f"Value #{_reference(position)}"] = heading
        panel = panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel.with_transformation(
        models.DataTransformerConfig(id_val="joinByField", options={"byField": by, "mode": "outer"})
    ).with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": _times(len(columns)), "renameByName": {by: "Model", **renamed}},
        )
    )


def _query(query: str, legend: str, position: int = 0) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query).ref_id(_reference(position)).datasource(DATASOURCE)
    return made.legend_format(legend) if legend else made


def _reference(position: int) -> str:
    return chr(ord("A") + position)


def _times(queries: int) -> dict[str, Any]:
    """Name the columns of evaluation times, which Grafana numbers from the second on."""
    return {"Time": True} | {f"Time {number}": True for number in range(1, queries + 1)}
