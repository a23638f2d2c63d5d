"""Dashboards for Grafana 11, as JSON: one set for a PostgreSQL store, one for an SQLite file.

    python -m edge_aggregate.grafana.dashboards --write tools/aggregate/edge_aggregate/grafana

Shares here are as read, without a band: bands and the corrected share are no SQL, the pages of `serve` have them.
PostgreSQL is one of Grafana's own data sources; SQLite needs the plugin `frser-sqlite-datasource`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import barchart, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from edge.types import CELLS, EMOTIONS, ROUTES

ENGINES: Final = {"postgres": "grafana-postgresql-datasource", "sqlite": "frser-sqlite-datasource"}
"""Store → type of the data source."""
_IN_TIME: Final = "day_s >= $__from / 1000 AND day_s < $__to / 1000"
_HAPPY: Final = " + ".join(f"{route}_happy" for route in ROUTES)
_CLASSES: Final = " + ".join(f"{route}_{emotion}" for route in ROUTES for emotion in EMOTIONS)
_SHARE: Final = (
    f"CASE WHEN SUM({_CLASSES}) > 0 THEN CASE WHEN SUM({_HAPPY}) < 0 THEN 0.0"
    f" WHEN SUM({_HAPPY}) > SUM({_CLASSES}) THEN 1.0 ELSE SUM({_HAPPY}) * 1.0 / SUM({_CLASSES}) END END"
)
"""Noise may leave a sum below 0, or happy above all: that is no share. (`LEAST` is no function of SQLite's.)"""
_SITES: Final = "site IN (${site:sqlstring})"

QUERIES: Final[dict[str, str]] = {
    "happy": f"SELECT {_SHARE} AS happy FROM site_days WHERE {_IN_TIME} AND {_SITES}",
    "votes": f"SELECT SUM({_CLASSES}) AS votes FROM site_days WHERE {_IN_TIME} AND {_SITES}",
    "coverage": "SELECT SUM(covered_ppm_s) / (1000.0 * NULLIF(SUM(milliseconds), 0)) AS coverage"
    f" FROM site_days WHERE {_IN_TIME} AND {_SITES}",
    "happy by day": f"SELECT day_s AS time, site AS metric, {_SHARE} AS happy FROM site_days"
    f" WHERE {_IN_TIME} AND {_SITES} GROUP BY day_s, site ORDER BY day_s, site",
    "votes by day": f"SELECT day_s AS time, site AS metric, SUM({_CLASSES}) AS votes FROM site_days"
    f" WHERE {_IN_TIME} AND {_SITES} GROUP BY day_s, site ORDER BY day_s, site",
    "expressions": " UNION ALL ".join(
        f"SELECT '{cell}' AS expression, SUM(unmasked_{cell}) AS unmasked, SUM(masked_{cell}) AS masked"
        f" FROM site_days WHERE {_IN_TIME} AND {_SITES}"
        for cell in CELLS
    ),
    "sites": f"SELECT site, {_SHARE} AS happy, SUM({_CLASSES}) AS votes, SUM(windows) AS windows,"
    f" SUM(duplicates) AS doubled FROM site_days WHERE {_IN_TIME} GROUP BY site ORDER BY site",
    "missing": "SELECT s.name AS site, SUM(g.last_seq - g.first_seq + 1) AS missing FROM gaps g"
    " JOIN sites s ON s.id = g.site WHERE g.before_ms >= $__from AND g.before_ms < $__to"
    " GROUP BY s.name ORDER BY s.name",
    "refused": "SELECT kind, lines FROM dead_kinds ORDER BY lines DESC, kind",
    "refused newest": "SELECT kind, reason, line, excerpt FROM dead ORDER BY id DESC LIMIT 50",
}
"""What each panel asks: read by the panels below and run in the tests, on both engines."""
_SITE_NAMES: Final = "SELECT name FROM sites ORDER BY name"


@dataclass
class _Query(Dataquery):  # type: ignore[misc]  # the SDK ships no types
    """A query of an SQL data source; the SDK has no type of its own for these two."""

    engine: str
    sql: str
    of_time: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the two data sources keep it."""
        form = "time_series" if self.of_time else "table"
        if self.engine == "sqlite":
            text = {"queryText": self.sql, "rawQueryText": self.sql, "queryType": form.replace("_", " ")}
            return {"refId": "A", **text, "timeColumns": ["time"] if self.of_time else []}
        return {"refId": "A", "rawSql": self.sql, "rawQuery": True, "editorMode": "code", "format": form}


def build(engine: str) -> dashboard.Dashboard:
    """The dashboard over a store of this engine."""
    kind = ENGINES[engine]
    source = DataSourceRef(type_val=kind, uid="${store}")

    def ask(name: str, *, of_time: bool = False) -> Any:  # noqa: ANN401 - a builder of the SDK
        return _Built(_Query(engine, QUERIES[name], of_time))

    share = "percentunit"
    return (
        dashboard.Dashboard("Happiness of the sites, as read")
        .uid(f"edge-aggregate-{engine}")
        .tags(["edge-aggregate"])
        .refresh("1m")
        .time("now-28d", "now")
        .timezone("utc")
        .with_variable(dashboard.DatasourceVariable("store").label("Store").type(kind))
        .with_variable(
            dashboard.QueryVariable("site")
            .label("Site")
            .datasource(source)
            .query(_SITE_NAMES)
            .multi(multi=True)
            .include_all(include_all=True)
            .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        )
        .with_panel(_panel(stat.Panel(), "Happy, as read, so far", source, ask("happy"), 6, 5).unit(share).decimals(1))
        .with_panel(_panel(stat.Panel(), "Votes", source, ask("votes"), 6, 5).unit("short"))
        .with_panel(
            _panel(stat.Panel(), "Coverage, of the reported time", source, ask("coverage"), 6, 5)
            .unit(share)
            .decimals(0)
        )
        .with_panel(_panel(barchart.Panel(), "Refused, by kind", source, ask("refused"), 6, 5))
        .with_panel(
            _panel(
                timeseries.Panel(),
                "Happy by day (UTC), as read; the newest days will still change",
                source,
                ask("happy by day", of_time=True),
                24,
                9,
            )
            .unit(share)
            .min(0)
        )
        .with_panel(_panel(timeseries.Panel(), "Votes by day", source, ask("votes by day", of_time=True), 12, 8))
        .with_panel(
            _panel(barchart.Panel(), "Expressions by route", source, ask("expressions"), 12, 8).stacking(
                StackingMode.NORMAL
            )
        )
        .with_panel(_panel(table.Panel(), "Sites", source, ask("sites"), 16, 8))
        .with_panel(_panel(table.Panel(), "Windows that never came", source, ask("missing"), 8, 8))
        .with_panel(_panel(table.Panel(), "The newest dead letters", source, ask("refused newest"), 24, 8))
    )


@dataclass
class _Built:
    """What the SDK takes for a builder."""

    query: _Query

    def build(self) -> _Query:
        """The query."""
        return self.query


def _panel(panel: Any, title: str, source: DataSourceRef, query: _Built, span: int, height: int) -> Any:  # noqa: ANN401
    return panel.title(title).datasource(source).with_target(query).span(span).height(height)


def text(engine: str) -> str:
    """The dashboard as Grafana imports it."""
    return str(JSONEncoder(sort_keys=True, indent=1).encode(build(engine).build())) + "\n"


def main() -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Grafana dashboards over a store.")
    parser.add_argument("--write", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().write
    for engine in ENGINES:
        (folder / f"{engine}.json").write_text(text(engine), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
