"""What a practice must keep of an erased household: put aside, seen by nobody, gone at the end of its term."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.keeping import Jurisdictions
from governance.erasure.kept import kept_leftovers, kept_rows, rows_to_keep
from governance.erasure.leftovers import warehouse_leftovers
from governance.erasure.purge import KeptAudit, purge
from governance.erasure.scope import request_erasure
from lake import layout
from lake.landing import list_manifests
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.store import LocalStore
from warehouse.duckdb.raw import open_warehouse

from .conftest import DAY, NOW, START, Town

ELSEWHERE = Jurisdictions("US-CA", {"texan": "US-TX"})
YEARS = {None: 3, "here": 3, "texan": 5}


def erase(town: Town, owner_id: str = "o1", jurisdictions: Jurisdictions = ELSEWHERE) -> Any:
    return request_erasure(
        town.store, owner_id, "12", NOW, 30, load_redactions(town.store), load_replacements(town.store),
        list_manifests(town.store), jurisdictions=jurisdictions,
    )  # fmt: skip


def purge_at(town: Town, now: datetime, dry_run: bool = False) -> Any:
    return purge(town.store, list_manifests(town.store), now, 60, dry_run)


def put_aside(town: Town) -> dict[tuple[str, str], date]:
    """Feed and key of every record that was put aside, and the first day on which it need not be kept."""
    return {
        (layout.kept_of(info.key)[0], key): layout.kept_of(info.key)[1]
        for info in town.store.list(layout.KEPT)
        for key in pq.read_table(pa.BufferReader(town.store.get(info.key)))["business_key"].to_pylist()
    }


def objects_about(town: Town, pet_ids: set[str]) -> list[str]:
    """Every Parquet object of the lake with a row of these pets, whatever it is for."""
    found = []
    for info in town.store.list(""):
        if info.key.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(town.store.get(info.key)))
            if "pet_id" in table.column_names and pet_ids & {*table["pet_id"].to_pylist()}:
                found.append(info.key)
    return found


def anniversary(last: datetime, years: int) -> date:
    return last.date().replace(year=last.year + years) + timedelta(days=1)


VISITS = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "p4"]),
        # Some so long ago that their term is over.
        st.sampled_from([START - 4 * 365 * DAY, START - 900 * DAY, START + DAY]),
        st.sampled_from(["completed", None, "no_show", "scheduled", "cancelled"]),
        st.sampled_from([None, "here", "texan"]),
    ),
    max_size=6,
)


@settings(
    max_examples=settings.default.max_examples // 50, deadline=None, phases=[Phase.explicit, Phase.generate]
)
@given(visits=VISITS)
def test_a_kept_record_is_read_by_nobody_and_gone_at_its_term(visits: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        town = Town(LocalStore(Path(folder) / "lake"))
        town.settle()
        rows = [
            {"visit_id": f"w{n}", "pet_id": pet, "visit_ts": at, "status": status, "clinic_id": clinic}
            for n, (pet, at, status, clinic) in enumerate(visits)
        ]
        town.land_records("clinic_visits", rows)
        town.land_records("visit_documents", [
            {"document_id": f"d{n}", "visit_id": f"w{n}", "pet_id": row["pet_id"], "document_uri": "s3://x"}
            for n, row in enumerate(rows)
        ])  # fmt: skip
        # Town.settle gave p1 and p4 visits on days 1 and 4, at no clinic.
        took_place = [row for row in rows if row["pet_id"] == "p1" and row["status"] in (None, "completed")]
        years = max(YEARS[clinic] for clinic in [None, *(row["clinic_id"] for row in took_place)])
        until = anniversary(START + 4 * DAY, years)
        keys = {("clinic_visits", key) for key in ("v1-1", "v1-4", *(row["visit_id"] for row in took_place))}
        keys |= {("visit_documents", f"d{n}") for n, row in enumerate(rows) if row["pet_id"] == "p1"}

        others = sorted(
            key
            for feed in ("clinic_visits", "visit_documents")
            for key, pet in named(town, feed)
            if pet != "p1"
        )
        town.load(Path(folder) / "w.duckdb")
        erase(town)
        redactions = load_redactions(town.store)
        planned = rows_to_keep(
            town.store, list_manifests(town.store), redactions, load_replacements(town.store), NOW
        )
        assert sum(one.rows for one in planned) == len(keys)
        town.load(Path(folder) / "w.duckdb")
        assert purge_at(town, NOW).kept_rows == len(keys)

        # Kept, and nobody reads it: neither who loads, nor who builds anew, nor who reads the lake.
        assert put_aside(town) == dict.fromkeys(keys, until)
        assert [one.rows for one in kept_rows(town.store, redactions)] == [one.rows for one in planned]
        town.load(Path(folder) / "rebuilt.duckdb")
        for name in ("w", "rebuilt"):
            with open_warehouse(Path(folder) / f"{name}.duckdb") as con:
                assert warehouse_leftovers(con, redactions) == []
        assert {key.split("/")[0] for key in objects_about(town, {"p1"})} == {"_kept"}
        assert (
            sorted(key for feed in ("clinic_visits", "visit_documents") for key, _ in named(town, feed))
            == others
        )

        # To the day, and then nothing is left in the lake.
        over = datetime.combine(until, datetime.min.time())
        assert purge_at(town, over - DAY / 2).expired_kept == 0
        assert put_aside(town).keys() == keys
        assert kept_leftovers(town.store, redactions, over + DAY) != []
        assert purge_at(town, over, dry_run=True).expired_kept > 0
        assert put_aside(town).keys() == keys
        assert purge_at(town, over).expired_kept > 0
        assert objects_about(town, {"p1"}) == []
        assert kept_leftovers(town.store, redactions, over + DAY) == []
        assert purge_at(town, over).expired_kept == 0


def named(town: Town, feed: str) -> list[tuple[str, str]]:
    table = town.rows(feed)
    return [*zip(table["business_key"].to_pylist(), table["pet_id"].to_pylist(), strict=True)]


def test_what_a_source_states_again_stays_until_the_term_and_not_beyond(town: Town) -> None:
    erase(town)
    purge_at(town, NOW)
    kept = put_aside(town)
    again = [{"visit_id": "v1-1", "pet_id": "p1", "visit_ts": START + DAY}]
    # So does a visit that nobody had heard of at the request.
    town.land_records("clinic_visits", [*again, {**again[0], "visit_id": "late"}], NOW)
    assert purge_at(town, NOW + DAY).kept_rows == 2
    assert put_aside(town).keys() == kept.keys() | {("clinic_visits", "late")}
    [until] = {*put_aside(town).values()}
    over = datetime.combine(until, datetime.min.time())
    town.land_records("clinic_visits", again, over)
    assert purge_at(town, over).kept_rows == 0
    assert objects_about(town, {"p1"}) == []


def test_a_pet_that_moved_on_keeps_its_own_visits_in_the_warehouse(town: Town) -> None:
    """p4 was o3's until day 3: its visit of day 1 goes, and stays put aside."""
    erase(town, "o3")
    purge_at(town, NOW)
    assert put_aside(town) == {("clinic_visits", "v4-1"): anniversary(START + DAY, 3)}
    assert ("v4-4", "p4") in named(town, "clinic_visits")


def test_the_end_of_a_term_is_audited_and_names_nobody(town: Town) -> None:
    entry = erase(town)
    purge_at(town, NOW)
    [info] = town.store.list(layout.KEPT)
    purge_at(town, NOW + 3000 * DAY)
    keys = [one.key for one in town.store.list(layout.REDACTION_AUDIT) if "/kept-" in one.key]
    [audit] = [json.loads(town.store.get(key)) for key in keys]
    assert audit.keys() == {*KeptAudit.__struct_fields__}
    assert (audit["deleted"]["key"], audit["redaction_id"]) == (info.key, entry.redaction_id)
    assert audit["deleted"]["rows"] == 2


def test_the_report_says_what_stays_why_and_until_when(town: Town) -> None:
    erase(town)
    purge_at(town, NOW)
    [said] = map(str, kept_rows(town.store, load_redactions(town.store)))
    assert said == (
        "2 rows of clinic_visits stay until 2029-06-06: clinical, US-CA,"
        " 3 years from the pet's last visit: 16 California Code of Regulations § 2032.3(b)"
    )


def test_a_file_that_is_not_what_was_put_aside_stops_the_purge(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governance.erasure import purge as purging

    erase(town)
    before = {info.key for info in town.store.list(layout.LANDING)}
    put = purging._put

    def spoilt(store: Any, key: str, data: bytes) -> None:
        put(store, key, data[:-9] if key.startswith(layout.KEPT) else data)

    monkeypatch.setattr(purging, "_put", spoilt)
    with pytest.raises(purging.PurgeError, match="is not what was to be put aside"):
        purge_at(town, NOW)
    assert {info.key for info in town.store.list(layout.LANDING)} >= {
        key for key in before if "clinic_visits" in key
    }
