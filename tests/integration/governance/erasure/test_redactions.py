"""Late opt-outs and erasures on a real lake and a real DuckDB file, incrementally and rebuilt from the lake."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from governance.erasure.late import enter_late_refusals
from governance.erasure.leftovers import due, lake_leftovers, warehouse_leftovers
from governance.erasure.purge import purge
from governance.erasure.scope import UnknownHouseholdError, request_erasure
from ingestion.collector.consent import OptOut
from lake.landing import list_claims, list_manifests
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from warehouse.duckdb.raw import (
    WAREHOUSE_MARK,
    data_time,
    dirty_days,
    open_warehouse,
    redacted_days,
    set_build_mark,
)
from warehouse.reconcile import read_raw_ranges, reconcile

from .conftest import DAY, NOW, START, refusing

Town = Any
Content = Any

DAYS_30 = 30


def erase(town: Town, owner_id: str, at: Any = NOW, dry_run: bool = False) -> Any:
    return request_erasure(
        town.store,
        owner_id,
        "request 12",
        at,
        DAYS_30,
        load_redactions(town.store),
        load_replacements(town.store),
        list_manifests(town.store),
        dry_run,
    )


def refuse(town: Town, owner_id: str, at: Any, known_at: Any) -> Any:
    """The household refuses; the record comes later; the next snapshot knows."""
    town.land_records(
        "owners", [{"owner_id": owner_id, "changed_at": at, "consent_flags": refusing(at)}], known_at
    )
    return enter_late_refusals(town.store, town.snapshot(), list_manifests(town.store), NOW, DAYS_30)


def purge_now(town: Town, **options: Any) -> Any:
    return purge(town.store, list_manifests(town.store), NOW, options.pop("rejects_days", 60), **options)


def left(town: Town, warehouse: Path | None = None) -> list[str]:
    redactions = load_redactions(town.store)
    found = lake_leftovers(town.store, list_manifests(town.store), redactions, load_replacements(town.store))
    if warehouse is not None:
        with open_warehouse(warehouse) as con:
            found += warehouse_leftovers(con, redactions)
    return [str(one) for one in found]


def reconciled(town: Town, warehouse: Path) -> Any:
    with open_warehouse(warehouse) as con:
        ranges, orphans = read_raw_ranges(con)
    return reconcile(list_claims(town.store), list_manifests(town.store), ranges, orphans)


def counts(town: Town, warehouse: Path) -> Counter[str]:
    with open_warehouse(warehouse) as con:
        return Counter(
            dict(con.execute("select device_id, count(*) from raw.telemetry_events group by all").fetchall())
        )


def test_a_refusal_known_late_takes_what_landed_since_out_of_raw(
    town: Town, tmp_path: Path, content: Content
) -> None:
    warehouse = tmp_path / "w.duckdb"
    town.load(warehouse)
    with open_warehouse(warehouse) as con:
        set_build_mark(con, WAREHOUSE_MARK, 1)
        present = data_time(con)
    late = refuse(town, "o1", START + 2 * DAY, START + 6 * DAY)
    [entry] = late.entered
    assert (entry.kind, entry.deadline - entry.requested_at) == ("late_opt_out", timedelta(days=30))
    # c1 is p1's until day 5, so it is o1's refusal from day 2 up to the last message before day 5.
    [(device, from_ts, to_ts)] = entry.arrivals
    assert (device, from_ts) == ("c1", START + 2 * DAY)
    assert to_ts == START + 4 * DAY + timedelta(hours=22, seconds=2, microseconds=1)
    report = town.load(warehouse)
    assert (report.redactions, report.removed_rows) == (1, 36)
    assert counts(town, warehouse) == {"c1": 48, "c2": 84, "c3": 84, "c4": 84}
    result = reconciled(town, warehouse)
    assert result.findings == ()
    assert result.redacted_rows == 36
    with open_warehouse(warehouse) as con:
        lost = [(START + n * DAY).date() for n in (2, 3, 4)]
        assert dirty_days(con, 1) == redacted_days(con, 1) == lost
        assert redacted_days(con, report.load_seq) is None
        assert data_time(con) >= present
    assert [place.split(":")[0].split("/")[0] for place in left(town, warehouse)] == [
        *["landing"] * 3,
        *["_rejects"] * 3,
    ]
    rebuilt = tmp_path / "r.duckdb"
    town.load(rebuilt)
    assert content(rebuilt) == content(warehouse)


def test_the_same_snapshot_again_finds_nothing_new(town: Town) -> None:
    assert len(refuse(town, "o1", START + 2 * DAY, START + 6 * DAY).entered) == 1
    again = enter_late_refusals(town.store, town.snapshot(), list_manifests(town.store), NOW, DAYS_30)
    assert again.entered == ()
    # What lands under the snapshot that knows is dropped on the way in and nothing is late.
    town.land_day(7)
    after = enter_late_refusals(town.store, town.snapshot(), list_manifests(town.store), NOW, DAYS_30)
    assert (after.entered, after.ranges_examined) == ((), 0)


def test_a_refusal_that_concerns_nothing_landed_writes_no_entry(town: Town) -> None:
    assert refuse(town, "o1", START + 20 * DAY, START + 21 * DAY).entered == ()


def test_a_range_claimed_under_the_old_snapshot_and_landed_later_is_found(town: Town) -> None:
    refuse(town, "o2", START + 2 * DAY, START + 6 * DAY)
    town.snapshots.pop()
    town.land_day(8)
    town.snapshot()
    late = enter_late_refusals(town.store, town.snapshots[-1], list_manifests(town.store), NOW, DAYS_30)
    [entry] = late.entered
    assert {arrivals.device_id for arrivals in entry.arrivals} == {"c1", "c2"}
    assert min(arrivals.from_ts for arrivals in entry.arrivals) > START + 6 * DAY


def test_an_erased_household_is_gone_from_raw_and_the_others_are_whole(
    town: Town, tmp_path: Path, content: Content
) -> None:
    warehouse = tmp_path / "w.duckdb"
    town.load(warehouse)
    others = {
        feed: [row for row in content(warehouse)[feed] if "Person 1" not in row and "p1" not in row]
        for feed in ("pets", "clinic_visits", "device_assignments")
    }
    entry = erase(town, "o1")
    assert (entry.owner_ids, entry.pet_ids) == (["o1"], ["p1"])
    assert entry.business_keys == {
        "owners": ["o1"],
        "pets": ["p1"],
        "device_assignments": ["a1"],
        "clinic_visits": ["v1-1", "v1-4"],
    }
    report = town.load(warehouse)
    assert report.removed_rows == 60 + 5
    assert counts(town, warehouse) == {"c1": 24, "c2": 84, "c3": 84, "c4": 84}
    after = content(warehouse)
    assert {feed: after[feed] for feed in others} == others
    assert not any("Person 1" in row for row in after["owners"])
    assert reconciled(town, warehouse).findings == ()
    with open_warehouse(warehouse) as con:
        assert warehouse_leftovers(con, load_redactions(town.store)) == []
    town.load(tmp_path / "r.duckdb")
    assert content(tmp_path / "r.duckdb") == after


def test_a_pet_that_moved_on_stays_with_its_new_owner(town: Town, tmp_path: Path, content: Content) -> None:
    entry = erase(town, "o3")
    assert entry.pet_ids == ["p3"]
    # p4 was o3's until day 3: its visit of day 1 and its telemetry up to then go, the rest is o4's.
    assert entry.business_keys["clinic_visits"] == ["v4-1"]
    town.load(tmp_path / "w.duckdb")
    assert counts(town, tmp_path / "w.duckdb") == {"c1": 84, "c2": 84, "c4": 48}
    with open_warehouse(tmp_path / "w.duckdb") as con:
        owners = con.execute("select pet_id, owner_id from raw.pets order by all").fetchall()
        visits = con.execute("select visit_id from raw.clinic_visits order by 1").fetchall()
    assert owners == [("p1", "o1"), ("p2", "o2"), ("p4", "o4"), ("p5", "o2")]
    assert [visit for (visit,) in visits] == ["v1-1", "v1-4", "v2-1", "v2-4", "v4-4"]


def test_documents_and_contacts_of_an_erased_household_go_with_it(
    town: Town, tmp_path: Path, content: Content
) -> None:
    town.keep_files()
    warehouse = tmp_path / "w.duckdb"
    town.load(warehouse)
    entry = erase(town, "o1")
    assert entry.business_keys["visit_documents"] == ["d1-1", "d1-4"]
    assert entry.business_keys["engagement"] == ["g1"]
    town.load(warehouse)
    after = content(warehouse)
    assert not any("Person 1" in str(row) for rows in after.values() for row in rows)
    assert len(after["visit_documents"]) == 4
    assert len(after["engagement"]) == 5
    purge_now(town)
    assert left(town, warehouse) == []
    assert town.rows("engagement")["engagement_id"].to_pylist() == ["g2", "g3", "g4", "g5", "g6"]
    town.load(tmp_path / "r.duckdb")
    assert content(tmp_path / "r.duckdb") == after


def test_what_happened_to_a_pet_while_it_was_theirs_goes_and_the_rest_stays(
    town: Town, tmp_path: Path
) -> None:
    town.keep_files()
    # p4 was o3's until day 3: the document of its visit of day 1 and what names its appointment of day 2 go,
    # also o4's call about that one; o4's own document, appointment and call stay.
    entry = erase(town, "o3")
    assert entry.business_keys["visit_documents"] == ["d4-1"]
    assert entry.business_keys["appointments"] == ["m4-2"]
    assert entry.business_keys["engagement"] == ["g3", "g4", "g6"]
    # A document of the erased visit and a contact about the erased appointment that come later are covered, too.
    town.land_records(
        "visit_documents",
        [
            {"document_id": "d4-1b", "visit_id": "v4-1", "pet_id": "p4", "document_uri": "s3://documents/x"},
            {"document_id": "d4-4b", "visit_id": "v4-4", "pet_id": "p4", "document_uri": "s3://documents/y"},
        ],
        NOW + DAY,
    )
    town.load(tmp_path / "w.duckdb")
    with open_warehouse(tmp_path / "w.duckdb") as con:
        kept = {
            feed: [
                key for (key,) in con.execute(f"select business_key from raw.{feed} order by 1").fetchall()
            ]
            for feed in ("visit_documents", "appointments", "engagement")
        }
    assert kept == {
        "visit_documents": ["d1-1", "d1-4", "d2-1", "d2-4", "d4-4", "d4-4b"],
        "appointments": ["m4-6"],
        "engagement": ["g1", "g2", "g5"],
    }
    assert reconciled(town, tmp_path / "w.duckdb").findings == ()


def test_events_sent_late_by_an_erased_pets_collar_are_erased_too(town: Town, tmp_path: Path) -> None:
    # Measured on p1 on day 4, received on day 5 when p5 wears the collar.
    town.land_day(4, late=DAY + timedelta(minutes=30), collars=["c1"])
    erase(town, "o1")
    town.load(tmp_path / "w.duckdb")
    with open_warehouse(tmp_path / "w.duckdb") as con:
        [(rows, first)] = con.execute(
            "select count(*), min(event_ts) from raw.telemetry_events where device_id = 'c1'"
        ).fetchall()
    assert (rows, first) == (24, START + 5 * DAY)


def test_erasing_twice_is_erasing_once(town: Town, tmp_path: Path, content: Content) -> None:
    first = erase(town, "o1")
    assert erase(town, "o1", NOW + DAY) is None
    town.load(tmp_path / "w.duckdb")
    purge_now(town)
    # Nothing names the household any more, and that is no unknown household.
    assert erase(town, "o1", NOW + 2 * DAY) is None
    assert load_redactions(town.store).ids == (first.redaction_id,)


def test_an_unknown_household_is_an_error_and_a_dry_run_writes_nothing(town: Town) -> None:
    with pytest.raises(UnknownHouseholdError, match="o9"):
        erase(town, "o9")
    assert erase(town, "o1", dry_run=True) is not None
    assert not load_redactions(town.store)


def test_an_erased_households_future_is_dropped_at_ingestion_until_the_collar_moves_on(town: Town) -> None:
    erase(town, "o2")
    assert town.snapshot().opted_out == [
        OptOut("c1", START + 5 * DAY, None, "erased"),
        OptOut("c2", START - DAY, None, "erased"),
    ]
    landed = town.land_day(8)
    assert (landed.rows, landed.consent_dropped) == (24, 24)
    assert landed.consent_dropped_by_reason == {"erased": 24}
    # Purged records say no more who wore it: the ledger does.
    purge_now(town)
    town.land_records(
        "device_assignments",
        [{"assignment_id": "a9", "device_id": "c2", "pet_id": "p3", "assigned_from": START + 9 * DAY}],
        START + 9 * DAY,
    )
    assert town.snapshot().opted_out == [
        OptOut("c1", START + 5 * DAY, None, "erased"),
        OptOut("c2", START - DAY, START + 9 * DAY, "erased"),
    ]
    assert town.land_day(9).consent_dropped_by_reason == {"erased": 12}


def test_what_a_source_says_again_of_an_erased_household_stays_out(
    town: Town, tmp_path: Path, content: Content
) -> None:
    erase(town, "o1")
    purge_now(town)
    town.load(tmp_path / "w.duckdb")
    town.land_records("owners", [{"owner_id": "o1", "name": "Person 1"}], START + 8 * DAY)
    town.land_records("pets", [{"pet_id": "p9", "owner_id": "o1"}], START + 8 * DAY)
    town.land_records(
        "clinic_visits", [{"visit_id": "v9", "pet_id": "p9", "visit_ts": START}], START + 8 * DAY
    )
    [entry] = enter_late_refusals(
        town.store, town.snapshot(), list_manifests(town.store), NOW, DAYS_30
    ).entered
    assert (entry.pet_ids, entry.business_keys) == (["p9"], {"clinic_visits": ["v9"]})
    assert town.load(tmp_path / "w.duckdb").rows_by_feed == {"clinic_visits": 0, "owners": 0, "pets": 0}
    assert reconciled(town, tmp_path / "w.duckdb").findings == ()
    purge_now(town)
    assert left(town, tmp_path / "w.duckdb") == []
    town.load(tmp_path / "r.duckdb")
    assert content(tmp_path / "r.duckdb") == content(tmp_path / "w.duckdb")


def test_only_entries_past_their_deadline_are_due(town: Town) -> None:
    entry = erase(town, "o1")
    redactions = load_redactions(town.store)
    assert not due(redactions, entry.deadline - timedelta(microseconds=1))
    assert due(redactions, entry.deadline).ids == redactions.ids
