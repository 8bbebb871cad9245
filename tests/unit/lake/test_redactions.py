"""Which rows the redaction ledger covers: as Arrow masks, as SQL, and against a plain reference."""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.columns import TELEMETRY_SCHEMA, record_schema
from lake.redactions import (
    ERASURE,
    Arrivals,
    Redaction,
    Redactions,
    Worn,
    from_epoch_us,
    load_redactions,
    merged,
    put_redaction,
    redaction_id_for,
    rows_received_in,
    without,
)
from lake.store import LocalStore
from warehouse.duckdb.redactions import redacted, register_redactions

T0 = datetime(2026, 6, 1)
DEVICES = ["a", "b", "c"]

stretches = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted).map(tuple), max_size=6)


def entry(**content: object) -> Redaction:
    return Redaction(
        redaction_id=redaction_id_for(T0, content),
        kind=ERASURE,
        reason="12",
        requested_at=T0,
        deadline=T0 + timedelta(days=30),
        **content,  # type: ignore[arg-type]
    )


def moments(of: list[tuple[int, int]]) -> set[int]:
    return {moment for low, high in of for moment in range(low, high)}


@given(stretches)
def test_merged_stretches_are_the_same_moments_disjoint_and_in_order(of: list[tuple[int, int]]) -> None:
    found = merged(of)
    assert moments(found) == moments(of)
    assert all(low < high for low, high in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(stretches, stretches)
def test_without_leaves_the_moments_that_are_not_removed(
    of: list[tuple[int, int]], removed: list[tuple[int, int]]
) -> None:
    assert moments(without(of, removed)) == moments(of) - moments(removed)


@given(
    st.lists(st.tuples(st.sampled_from(DEVICES), st.integers(0, 20), st.integers(0, 20)), max_size=6),
    st.lists(st.tuples(st.sampled_from([*DEVICES, "d"]), st.integers(0, 20)), max_size=20),
)
def test_a_row_is_covered_if_its_device_is_named_when_it_came(
    limits: list[tuple[str, int, int]], rows: list[tuple[str, int]]
) -> None:
    expected = [any(d == device and low <= at < high for device, low, high in limits) for d, at in rows]
    devices = pa.chunked_array([pa.array([d for d, _ in rows], pa.string())])
    found = rows_received_in(limits, devices, np.array([at for _, at in rows], np.int64))
    assert found.tolist() == expected


def telemetry(rows: list[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {
            "device_id": pa.array([device for device, _ in rows], pa.string()),
            "arrival_ts": pa.array([from_epoch_us(at) for _, at in rows], pa.timestamp("us")),
        }
    )


def sql_mask(feed: str, redactions: Redactions, table: pa.Table) -> list[bool]:
    con = duckdb.connect()
    try:
        register_redactions(con, redactions)
        numbered = table.append_column("position", pa.array(range(table.num_rows)))
        con.register("_rows", numbered)
        covered = redacted(feed, redactions, "landed")
        return [
            row[0]
            for row in con.execute(f"select {covered} from _rows as landed order by position").fetchall()
        ]
    finally:
        con.close()


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.full)])
def test_sql_and_arrow_cover_the_same_telemetry(rounds: int) -> None:
    rng = np.random.default_rng(4)
    for _ in range(rounds):
        arrivals = [
            Arrivals(
                str(rng.choice(DEVICES)), from_epoch_us(low), from_epoch_us(low + int(rng.integers(1, 9)))
            )
            for low in rng.integers(0, 40, 5).tolist()
        ]
        redactions = Redactions((entry(arrivals=arrivals),))
        rows = telemetry([(str(rng.choice([*DEVICES, "d"])), int(at)) for at in rng.integers(0, 50, 60)])
        found = redactions.rows("telemetry_events", rows).tolist()
        assert True in found
        assert False in found
        assert sql_mask("telemetry_events", redactions, rows) == found


def test_sql_and_arrow_cover_the_same_records_and_nulls_are_nobodys() -> None:
    redactions = Redactions(
        (entry(owner_ids=["o1"], pet_ids=["p1"], business_keys={"pets": ["p7"], "clinic_visits": ["v1"]}),)
    )
    pets = pa.table(
        {
            "business_key": ["p1", "p2", "p7", "p3", "p4"],
            "pet_id": ["p1", "p2", "p7", "p3", "p4"],
            "owner_id": pa.array(["o2", "o1", "o2", None, "o2"], pa.string()),
        }
    )
    assert redactions.rows("pets", pets).tolist() == [True, True, True, False, False]
    assert sql_mask("pets", redactions, pets) == [True, True, True, False, False]
    visits = pa.table(
        {"business_key": ["v1", "v2", "v3"], "visit_id": ["v1", "v2", "v3"], "pet_id": ["p2", "p1", "p2"]}
    )
    assert redactions.rows("clinic_visits", visits).tolist() == [True, True, False]
    assert sql_mask("clinic_visits", redactions, visits) == [True, True, False]


def test_what_refers_to_an_erased_record_is_erased_with_it() -> None:
    redactions = Redactions(
        (entry(owner_ids=["o1"], business_keys={"clinic_visits": ["v1"], "appointments": ["a1"]}),)
    )
    documents = pa.table({"business_key": ["d1", "d2"], "visit_id": ["v1", "v2"], "pet_id": ["p2", "p2"]})
    assert redactions.rows("visit_documents", documents).tolist() == [True, False]
    assert sql_mask("visit_documents", redactions, documents) == [True, False]
    contacts = pa.table(
        {
            "business_key": ["e1", "e2", "e3", "e4"],
            "owner_id": ["o1", "o2", "o2", "o2"],
            "appointment_id": pa.array([None, "a1", "a2", None], pa.string()),
        }
    )
    assert redactions.rows("engagement", contacts).tolist() == [True, True, False, False]
    assert sql_mask("engagement", redactions, contacts) == [True, True, False, False]


def test_a_feed_that_names_nobody_is_not_covered() -> None:
    redactions = Redactions((entry(owner_ids=["o1"], pet_ids=["p1"]),))
    assert [
        feed
        for feed in ("telemetry_events", "owners", "pets", "clinic_visits", "breeds", "clinics", "devices")
        if redactions.covers_feed(feed)
    ] == ["owners", "pets", "clinic_visits"]
    assert redacted("breeds", redactions, "landed") == "false"
    assert redactions.rows("breeds", record_schema("breeds").empty_table()).tolist() == []
    assert redactions.columns("telemetry_events", TELEMETRY_SCHEMA.names) == ["device_id", "arrival_ts"]


def test_the_ledger_reads_back_what_was_entered_in_order(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = entry(worn=[Worn("a", T0, None)], owner_ids=["o1"], business_keys={"owners": ["o1"]})
    second = entry(arrivals=[Arrivals("a", T0, T0 + timedelta(days=1))])
    for one in (first, second, first):
        put_redaction(store, one)
    assert sorted(load_redactions(store).ids) == sorted({first.redaction_id, second.redaction_id})
    assert load_redactions(store).only([first.redaction_id]).entries == (first,)
    day = 24 * 3600 * 10**6
    start = 1780272000 * 10**6
    assert load_redactions(store).arrivals == [("a", start, start + day)]
    assert [one.redaction_id for one in load_redactions(store).by_entry] == [second.redaction_id]


def test_an_empty_ledger_is_false_and_covers_nothing(tmp_path: Path) -> None:
    none = load_redactions(LocalStore(tmp_path))
    assert not none
    assert not none.covers_feed("owners")
