"""Each panel's query gives the command line's figures, on both engines; the committed dashboards are the built ones."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from edge_aggregate.decode import milliseconds
from edge_aggregate.figures import figures
from edge_aggregate.grafana.dashboards import ENGINES, QUERIES, text
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.store import Store, open_store

from tests.aggregate.test_store import messy_log
from tests.support.windows import DAY, write_log

PERIOD = Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=3)))


def asked(store: Store, name: str) -> list[tuple[Any, ...]]:
    """A panel's answer, its variables put in as Grafana does."""
    sql = QUERIES[name].replace("$__from", str(PERIOD.start_ms)).replace("$__to", str(PERIOD.end_ms))
    return store.engine.fetch(sql.replace("${site:sqlstring}", "'hall','lobby'"))


def test_every_query(tmp_path: Path, address: str) -> None:
    with open_store(address, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", messy_log(5))])
        found = figures(store, PERIOD)
        happy, n = sum(figure.happy for figure in found), sum(figure.n for figure in found)
        assert float(asked(store, "happy")[0][0]) == pytest.approx(happy / n)
        assert int(asked(store, "votes")[0][0]) == n
        assert [(site, int(votes)) for site, _, votes, _, _ in asked(store, "sites")] == [(f.site, f.n) for f in found]
        assert sum(int(votes) for _, _, votes in asked(store, "votes by day")) == n
        assert {int(day) % 86400 for day, _, _ in asked(store, "happy by day")} == {0}
        cells = {cell: int(one or 0) + int(other or 0) for cell, one, other in asked(store, "expressions")}
        assert cells["happy"] == happy
        assert sum(cells.values()) - cells["uncertain"] == n
        assert sum(int(missing) for _, missing in asked(store, "missing")) == sum(f.missing for f in found)
        assert asked(store, "refused")
        assert asked(store, "refused newest")
        assert 0 < float(asked(store, "coverage")[0][0]) <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_committed_dashboards_are_the_built_ones(engine: str) -> None:
    from edge_aggregate import grafana

    committed = (Path(grafana.__file__).parent / f"{engine}.json").read_text(encoding="utf-8")
    assert committed == text(engine), "python -m edge_aggregate.grafana.dashboards --write …"
    panels = json.loads(committed)["panels"]
    key = "rawSql" if engine == "postgres" else "rawQueryText"
    titles = " ".join(panel["title"] for panel in panels)
    for mark in ("so far", "will still change"):
        assert mark in titles, "an unfinished period is marked"
    assert {panel["targets"][0][key] for panel in panels} == set(QUERIES.values()), "no panel without a tested query"
