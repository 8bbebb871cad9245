"""Quarantined rows and ranges on a real lake and DuckDB file, loaded before and after, and rebuilt from the lake."""

import tempfile
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ingestion.collector.superseding import mend_chains, plan_mend
from lake.catalogue import roll_up
from lake.landing import Manifest, claim_range, list_claims, list_manifests, read_claim, verify_chain
from lake.quarantine import Span, load_quarantine, put_entry, quarantine_entry
from lake.store import LocalStore, ObjectStore
from warehouse.duckdb.raw import (
    WAREHOUSE_MARK,
    count_rows_in,
    data_time,
    dirty_days,
    forget_ranges,
    load_pending,
    open_warehouse,
    set_build_mark,
    table_row_counts,
    vouched_seq,
)
from warehouse.reconcile import read_raw_ranges, reconcile

from .conftest import START, STREAM

Land = Callable[..., Manifest]
NOW = datetime(2026, 6, 6)
DAY = timedelta(days=1)


def quarantine(store: ObjectStore, *spans: tuple[int, int], at: datetime = NOW) -> str:
    entry = quarantine_entry("why", "ann", at, [Span(STREAM, 0, start, end) for start, end in spans])
    put_entry(store, entry)
    return entry.quarantine_id


def release(store: ObjectStore, quarantine_id: str, at: datetime = NOW) -> None:
    put_entry(store, quarantine_entry("it was right", "ann", at, releases=quarantine_id))


def load(path: Path, store: ObjectStore) -> Any:
    with open_warehouse(path, store) as con:
        return load_pending(con, store, list_manifests(store))


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of raw that a rebuild has to bring back: all but when it was loaded and what was applied."""
    with open_warehouse(path, read_only=True) as con:
        return {
            table: con.execute(
                f"select * {'exclude (loaded_at, load_seq)' if table == 'load_history' else ''} from raw.{table}"
                " order by all"
            ).fetchall()
            for table in table_row_counts(con, "raw")
            if table not in ("redactions", "build_marks")
        }


def fresh(store: ObjectStore) -> dict[str, list[tuple[Any, ...]]]:
    """What a rebuild from the lake brings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fresh.duckdb"
        load(path, store)
        return content(path)


def offsets(path: Path, partition: int = 0) -> list[int]:
    with open_warehouse(path, read_only=True) as con:
        rows = con.execute(
            "select kafka_offset from raw.telemetry_events where kafka_partition = ? order by 1", [partition]
        ).fetchall()
    return [offset for (offset,) in rows]


def reconciled(path: Path, store: ObjectStore) -> Any:
    with open_warehouse(path) as con:
        ranges, orphans = read_raw_ranges(con)
    return reconcile(
        list_claims(store), list_manifests(store), ranges, orphans, quarantine=load_quarantine(store)
    )


def test_a_quarantined_row_never_enters_raw_and_is_counted(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 0, 5)
    land_telemetry(store, 0, 5, partition=1)
    quarantine(store, (3, 4))
    report = load(warehouse_path, store)
    assert (report.rows_by_feed, report.ranges) == ({"telemetry_events": 9}, 2)
    assert (offsets(warehouse_path), offsets(warehouse_path, 1)) == ([0, 1, 2, 4], [0, 1, 2, 3, 4])
    result = reconciled(warehouse_path, store)
    assert (result.findings, result.raw_rows, result.redacted_rows) == ((), 9, 1)
    assert load(warehouse_path, store).ranges == 0


def test_what_was_loaded_leaves_raw_and_its_days_are_dirty(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land
) -> None:
    for day in range(3):
        land_telemetry(store, 4 * day, 4, first_ts=START + day * DAY)
    land_clinics(store, "day-1", 3)
    loaded = load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        set_build_mark(con, WAREHOUSE_MARK, loaded.load_seq)
    quarantine(store, (4, 8), (9, 10))
    report = load(warehouse_path, store)
    assert offsets(warehouse_path) == [0, 1, 2, 3, 8, 10, 11]
    assert report.event_dates == (date(2026, 6, 2), date(2026, 6, 3))
    with open_warehouse(warehouse_path) as con:
        assert dirty_days(con, loaded.load_seq) == [date(2026, 6, 2), date(2026, 6, 3)]
        assert count_rows_in(con, load_quarantine(store).spans) == 0
        assert count_rows_in(con, [Span(STREAM, 0, 0, 8)]) == 4
        # What an earlier reconciliation vouched for is looked at again.
        assert vouched_seq(con) == 0
    assert reconciled(warehouse_path, store).findings == ()
    assert content(warehouse_path) == fresh(store)
    again = load(warehouse_path, store)
    assert (again.load_seq, again.ranges, again.removed_rows) == (report.load_seq, 0, 0)


def test_a_released_range_comes_back(store: LocalStore, warehouse_path: Path, land_telemetry: Land) -> None:
    land_telemetry(store, 0, 5)
    land_telemetry(store, 5, 5, first_ts=START + DAY)
    entered = quarantine(store, (0, 7))
    load(warehouse_path, store)
    assert offsets(warehouse_path) == [7, 8, 9]
    release(store, entered)
    report = load(warehouse_path, store)
    assert (report.ranges, report.event_dates) == (2, (date(2026, 6, 1), date(2026, 6, 2)))
    assert offsets(warehouse_path) == [*range(10)]
    assert content(warehouse_path) == fresh(store)


def test_a_message_from_the_future_moves_the_present_no_further_than_its_claim(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    """As releases before the clock of a receipt was judged have landed them; what was present stays (decision 043)."""
    land_telemetry(store, 0, 5)
    manifest = land_telemetry(store, 5, 1, first_ts=datetime(2036, 1, 1))
    load(warehouse_path, store)
    quarantine(store, (5, 6))
    load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        assert data_time(con) == manifest.ingested_at


def test_records_are_quarantined_by_their_place_too(
    store: LocalStore, warehouse_path: Path, land_clinics: Land
) -> None:
    extract = land_clinics(store, "day-1", 3)
    load(warehouse_path, store)
    put_entry(store, quarantine_entry("why", "ann", NOW, [Span(extract.stream_id, 0, 1, 2)]))
    load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        rows = con.execute("select clinic_id from raw.clinics order by all").fetchall()
    assert rows == [("C0",), ("C2",)]
    assert reconciled(warehouse_path, store).findings == ()
    assert content(warehouse_path) == fresh(store)


def test_a_reload_leaves_the_quarantined_rows_out(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    landed = land_telemetry(store, 0, 5)
    quarantine(store, (3, 4))
    load(warehouse_path, store)
    before = content(warehouse_path)
    with open_warehouse(warehouse_path) as con:
        con.execute("delete from raw.telemetry_events where kafka_offset = 0")
        forget_ranges(con, [landed])
    load(warehouse_path, store)
    assert content(warehouse_path) == before


bounds = st.tuples(st.integers(0, 11), st.integers(1, 6))
steps = st.one_of(
    st.tuples(st.just("quarantine"), bounds),
    st.tuples(st.just("release"), st.integers(0, 3)),
    st.tuples(st.just("land"), st.just(0)),
    st.tuples(st.just("load"), st.just(0)),
)


@settings(
    max_examples=settings.default.max_examples // 33, deadline=None, phases=[Phase.explicit, Phase.generate]
)
@given(done=st.lists(steps, min_size=3, max_size=8))
def test_any_order_of_landing_loading_quarantine_and_release_ends_with_the_rows_that_may_be_used(
    done: list[tuple[str, Any]], land_telemetry: Land
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, path = LocalStore(Path(folder) / "lake"), Path(folder) / "w.duckdb"
        landed, entered = 0, list[tuple[str, tuple[int, int]]]()
        for number, (step, value) in enumerate(done):
            at = NOW + timedelta(seconds=number)
            if step == "land":
                land_telemetry(store, landed, 4, first_ts=START + landed * timedelta(hours=5))
                landed += 4
            elif step == "quarantine":
                span = (value[0], sum(value))
                entered.append((quarantine(store, span, at=at), span))
            elif step == "release" and value < len(entered):
                release(store, entered[value][0], at)
                entered.pop(value)
            elif step == "load":
                load(path, store)
        load(path, store)
        gone = {offset for _, (start, end) in entered for offset in range(start, end)}
        assert offsets(path) == [offset for offset in range(landed) if offset not in gone]
        assert reconciled(path, store).findings == ()
        assert content(path) == fresh(store)


# Claims of one partition that overlap: a chain's first claim raced with the log's retention.


def overlapping(store: ObjectStore, land_telemetry: Land, path: Path, is_rolled_up: bool) -> None:
    """[100, 200) was claimed when the log began at 100; then a worker woke up with [0, 200)."""
    land_telemetry(store, 100, 100, first_ts=START + DAY)
    if is_rolled_up:
        roll_up(store, NOW)
    land_telemetry(store, 0, 200)
    load(path, store)


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_of_two_claims_that_overlap_the_one_that_repeats_is_superseded_and_raw_has_each_row_once(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, is_rolled_up: bool
) -> None:
    overlapping(store, land_telemetry, warehouse_path, is_rolled_up)
    mend = plan_mend(store, NOW, "ann")
    [span] = mend.superseded
    assert (span.start, span.end, mend.gaps, mend.refused) == (100, 200, (), ())
    assert "+100+200.parquet" in (span.source_file or "")
    assert load_quarantine(store).entries == ()
    entry = mend_chains(store, mend, "a race with retention", "ann", NOW)
    assert load_quarantine(store).entries == (entry,)
    assert len(list_claims(store)) == 2
    verify_chain(load_quarantine(store).standing(list_claims(store)))
    assert not plan_mend(store, NOW, "ann")
    load(warehouse_path, store)
    assert offsets(warehouse_path) == [*range(200)]
    result = reconciled(warehouse_path, store)
    assert (result.findings, result.raw_rows, result.redacted_rows) == ((), 200, 100)
    assert content(warehouse_path) == fresh(store)
    # The catalogue keeps both: what erases a household has to find the originals of both.
    roll_up(store, NOW + DAY)
    assert len(list_claims(store)) == len(list_manifests(store)) == 2


def test_a_chain_that_begins_above_0_gets_its_gap_claim(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 100, 5)
    land_telemetry(store, 105, 5)
    land_telemetry(store, 0, 5, partition=1)
    roll_up(store, NOW)
    load(warehouse_path, store)
    mend = plan_mend(store, NOW, "ann")
    assert [(gap.partition, gap.start, gap.end) for gap in mend.gaps] == [(0, 0, 100)]
    # One that died when it had claimed the gap is finished by the next.
    claim_range(store, mend.gaps[0])
    mend = plan_mend(store, NOW + DAY, "bob")
    assert [(gap.start, gap.claimed_by) for gap in mend.gaps] == [(0, "ann")]
    assert mend_chains(store, mend, "why", "ann", NOW) is None
    assert not plan_mend(store, NOW, "ann")
    claims = [claim for claim in list_claims(store) if claim.partition == 0]
    assert [(claim.start, claim.end, bool(claim.gap_reason)) for claim in claims] == [
        (0, 100, True),
        (100, 105, False),
        (105, 110, False),
    ]
    [gap] = [m for m in list_manifests(store) if m.partition == m.start == 0]
    assert (gap.rows, gap.offset_gaps) == (0, 100)
    load(warehouse_path, store)
    assert reconciled(warehouse_path, store).findings == ()
    assert content(warehouse_path) == fresh(store)


def test_a_claim_that_repeats_in_part_keeps_the_rest(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 0, 20)
    land_telemetry(store, 10, 20)
    mend = plan_mend(store, NOW, "ann")
    assert [(span.start, span.end) for span in mend.superseded] == [(10, 20)]
    mend_chains(store, mend, "why", "ann", NOW)
    load(warehouse_path, store)
    assert offsets(warehouse_path) == [*range(30)]
    assert reconciled(warehouse_path, store).findings == ()


def test_the_claim_that_holds_nothing_of_an_overlap_is_the_one_that_yields(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 10, 10)
    land_telemetry(store, 0, 0, rejected=20)
    mend = plan_mend(store, NOW, "ann")
    [span] = mend.superseded
    assert "+0+20.parquet" in (span.source_file or "")
    mend_chains(store, mend, "why", "ann", NOW)
    load(warehouse_path, store)
    assert offsets(warehouse_path) == [*range(10, 20)]
    assert reconciled(warehouse_path, store).findings == ()


def test_a_claim_that_has_not_landed_is_not_judged(store: LocalStore, land_telemetry: Land) -> None:
    landed = land_telemetry(store, 0, 10)
    claim_range(store, msgspec.structs.replace(read_claim(store, landed.range_key), start=5, end=10))
    mend = plan_mend(store, NOW, "ann")
    assert mend.superseded == ()
    assert len(mend.refused) == 1
    assert "[5, 10)" in mend.refused[0]
    assert "has not landed" in mend.refused[0]
