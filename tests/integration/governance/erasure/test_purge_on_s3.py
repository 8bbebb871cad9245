"""The same purge on S3 over HTTP."""

from pathlib import Path
from typing import Any

from governance.erasure.leftovers import lake_leftovers
from governance.erasure.purge import purge
from governance.erasure.scope import request_erasure
from lake.landing import list_manifests
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.store import S3Store

from .conftest import NOW, Town


def test_an_erased_household_is_purged_from_s3_and_the_rest_loads(
    s3_store: S3Store, tmp_path: Path, content: Any
) -> None:
    town = Town(s3_store)
    town.settle()
    town.snapshot()
    for day in range(2):
        town.land_day(day)
    town.load(tmp_path / "w.duckdb")
    store, manifests = town.store, list_manifests(town.store)
    request_erasure(store, "o1", "12", NOW, 30, load_redactions(store), load_replacements(store), manifests)
    town.load(tmp_path / "w.duckdb")
    report = purge(store, manifests, NOW, 60)
    assert (report.ranges, report.redacted_rows, report.deleted_objects) == (6, 24 + 5, 8)
    assert lake_leftovers(store, manifests, load_redactions(store), load_replacements(store)) == []
    assert purge(store, manifests, NOW, 60).deleted_objects == 0
    town.load(tmp_path / "r.duckdb")
    assert content(tmp_path / "r.duckdb") == content(tmp_path / "w.duckdb")
