"""Quarantine and erasure of the same rows, in either order: what is quarantined is purged as all else."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from governance.erasure.leftovers import lake_leftovers
from governance.erasure.purge import purge
from governance.erasure.scope import request_erasure
from lake.landing import list_claims, list_manifests
from lake.quarantine import Span, load_quarantine, put_entry, quarantine_entry
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from warehouse.duckdb.raw import open_warehouse
from warehouse.reconcile import read_raw_ranges, reconcile

from .conftest import NOW, STREAM

Town = Any
Content = Any


def quarantine(town: Town) -> str:
    """The first day's first 24 messages: 6 of each collar, c1 of the erased household o1 among them."""
    entry = quarantine_entry("why", "ann", NOW, [Span(STREAM, 0, 0, 24)])
    put_entry(town.store, entry)
    return entry.quarantine_id


def erase(town: Town) -> None:
    store = town.store
    known = load_redactions(store), load_replacements(store), list_manifests(store)
    assert request_erasure(store, "o1", "request 12", NOW, 30, *known) is not None


def purge_now(town: Town) -> None:
    purge(town.store, list_manifests(town.store), NOW, 60)


def counts(path: Path) -> Counter[str]:
    with open_warehouse(path) as con:
        rows = con.execute("select device_id, count(*) from raw.telemetry_events group by all").fetchall()
    return Counter(dict(rows))


def findings(town: Town, path: Path) -> Any:
    store = town.store
    with open_warehouse(path) as con:
        ranges, orphans = read_raw_ranges(con)
    claims, manifests = list_claims(store), list_manifests(store)
    return reconcile(claims, manifests, ranges, orphans, quarantine=load_quarantine(store)).findings


@pytest.mark.parametrize("order", ["quarantine first", "erasure first", "loaded between", "purged between"])
def test_an_erased_households_quarantined_rows_are_purged_and_do_not_come_back(
    make_town: Any, tmp_path: Path, content: Content, order: str
) -> None:
    town, path, rebuilt = make_town(2), tmp_path / "w.duckdb", tmp_path / "r.duckdb"
    town.load(path)
    if order in ("quarantine first", "loaded between"):
        entered = quarantine(town)
        if order == "loaded between":
            town.load(path)
        erase(town)
    else:
        erase(town)
        if order == "purged between":
            town.load(path)
            purge_now(town)
        entered = quarantine(town)
    town.load(path)
    assert counts(path) == {"c2": 18, "c3": 18, "c4": 18}
    purge_now(town)
    store = town.store
    assert "c1" not in town.rows()["device_id"].to_pylist()
    assert (
        lake_leftovers(store, list_manifests(store), load_redactions(store), load_replacements(store)) == []
    )
    # Originals of everybody else are kept.
    assert town.rows().num_rows == 72
    town.load(rebuilt)
    assert content(path) == content(rebuilt)
    assert findings(town, path) == ()
    put_entry(store, quarantine_entry("it was right", "ann", NOW, releases=entered))
    town.load(path)
    assert counts(path) == {"c2": 24, "c3": 24, "c4": 24}
    assert findings(town, path) == ()
