"""Raw loads on the emulator: COPY INTO from an S3 server, a stand-in for the pipes, the embedded loader as measure.

Executed here: every statement of `snowflake.raw` and `snowflake.redactions`, and the COPY
INTO of the planned pipes. Not executed: what a real pipe is asked and told
(`snowflake.pipes.SnowflakePipes`); `test_statements.py`
parses that.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from governance.erasure.account_leftovers import account_leftovers
from governance.erasure.purge import purge
from infrastructure.snowflake_emulator.local import LocalEmulator
from lake.landing import Manifest, feed_schema, list_manifests, utc_now
from lake.quarantine import Span, put_entry, quarantine_entry
from lake.redactions import Redactions, load_redactions
from lake.store import S3Store
from warehouse.snowflake import raw as snowflake_raw
from warehouse.snowflake.pipes import PAUSED, RUNNING, PipeBusyError
from warehouse.snowflake.raw import ConcurrentLoadError, LoadRefusedError
from warehouse.snowflake.reconcile import account_findings
from warehouse.snowflake.session import SnowflakeError, open_snowflake, run, transaction
from warehouse.snowflake.settings import SnowflakeSettings

from .stand_in import KEYS, DyingSession, Zone, landing_zone, lose, quarantine, redact, start_over

FEED = "telemetry_events"


@pytest.fixture(scope="module")
def s3_endpoint(emulator: LocalEmulator) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    emulator.use_s3(f"http://{host}:{port}", KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"])
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def sign_in_to(
    emulator: LocalEmulator, make_database: Callable[[str], str]
) -> Callable[[str], SnowflakeSettings]:
    """Every zone has the same database, made over for it: one zone is open at a time."""
    made: list[str] = []

    def sign_in(landing_url: str) -> SnowflakeSettings:
        if made:
            with emulator.connect(made[0], "RAW") as con:
                start_over(con, made[0], landing_url)
        else:
            made.append(make_database(landing_url))
        prefix = "PETWELLNESS_SNOWFLAKE_"
        variables = emulator.dbt_environment(made[0])
        given: Any = {name.removeprefix(prefix).lower(): value for name, value in variables.items()}
        return SnowflakeSettings(**{name: value for name, value in given.items() if value})

    return sign_in


@pytest.fixture
def zone(s3_endpoint: str, sign_in_to: Callable[[str], SnowflakeSettings], tmp_path: Path) -> Iterator[Zone]:
    with landing_zone(s3_endpoint, tmp_path, sign_in_to) as found:
        yield found


def counts(report: Any) -> tuple[int, int, int, int]:
    return report.adopted, report.copied, report.mended, report.waiting


def test_what_pipes_brought_is_adopted_and_the_rest_copied(zone: Zone) -> None:
    zone.land(5)
    assert zone.deliver() == 1
    zone.land(4, rejected=2)
    zone.land_owners("day-1", ["o1", "o2"])
    lose(zone.pipes)
    report = zone.load()
    assert counts(report) == (1, 2, 0, 0)
    assert report.rows_by_feed == {FEED: 9, "owners": 2}
    assert report.event_dates == (date(2026, 6, 1),)
    assert zone.content() == zone.embedded_content()
    assert snowflake_raw.dirty_days(zone.con, 0) == [date(2026, 6, 1)]
    assert snowflake_raw.dirty_days(zone.con, report.load_seq) == []
    again = zone.load()
    assert (counts(again), again.load_seq) == ((0, 0, 0, 0), report.load_seq)


def test_a_range_without_rows_needs_no_file(zone: Zone) -> None:
    zone.land(0, rejected=3)
    lose(zone.pipes)
    assert counts(zone.load()) == (1, 0, 0, 0)
    assert zone.pipes.calls == []
    assert zone.content() == zone.embedded_content()


def test_within_its_grace_a_range_is_left_to_its_pipe(zone: Zone) -> None:
    zone.land(5, claimed_at=utc_now())
    lose(zone.pipes)
    assert counts(zone.load(grace_s=600)) == (0, 0, 0, 1)
    assert (zone.pipes.calls, zone.rows("select 1 as one from raw.load_history")) == ([], [])
    assert counts(zone.load(grace_s=0)) == (0, 1, 0, 0)


def test_the_pipe_stands_still_while_files_are_copied_and_runs_again(zone: Zone) -> None:
    zone.land(5)
    lose(zone.pipes)
    seen = []
    zone.load(progress=lambda _: seen.append(zone.pipes.state_of(FEED)))
    assert seen == [PAUSED]
    assert zone.pipes.calls == [("pause", FEED), ("resume", FEED)]
    assert marks(zone) == []


def test_what_was_queued_when_the_pipe_was_paused_is_taken_in_first(zone: Zone) -> None:
    zone.land(5)
    zone.land(5)
    zone.pipes.receive()  # Queued, not yet taken in.
    assert counts(zone.load()) == (2, 0, 0, 0)
    assert zone.content() == zone.embedded_content()


def test_a_pipe_that_does_not_come_to_rest_keeps_files_from_being_copied(zone: Zone) -> None:
    zone.land(5)
    zone.pipes.receive()
    zone.land_owners("day-1", ["o1"])
    lose_all_but = zone.pipes.queued[FEED]
    lose(zone.pipes)
    zone.pipes.queued[FEED] = lose_all_but
    zone.pipes.is_stuck = True
    with pytest.raises(PipeBusyError, match="1 files queued"):
        zone.load(drain_s=0)
    assert zone.pipes.state_of(FEED) == RUNNING
    assert zone.rows(f"select 1 as one from raw.{FEED}") == []
    # Other feeds do not wait for it.
    assert zone.rows("select owner_id from raw.owners") == [("o1",)]


def test_a_pipe_that_somebody_paused_stays_paused(zone: Zone) -> None:
    zone.pipes.states[FEED] = PAUSED
    zone.land(5)
    lose(zone.pipes)
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert (zone.pipes.calls, zone.pipes.state_of(FEED)) == ([], PAUSED)


def test_a_pause_that_a_dead_load_left_is_ended_by_the_next(zone: Zone) -> None:
    zone.land(5)
    lose(zone.pipes)
    zone.pipes.states[FEED] = PAUSED
    run(zone.con, "insert into raw.build_marks (mark, load_seq) values (%s, 0)", [f"paused pipe {FEED}"])
    zone.load()
    assert zone.pipes.state_of(FEED) == RUNNING
    assert marks(zone) == []


def marks(zone: Zone) -> list[str]:
    return [mark for (mark,) in zone.rows("select mark from raw.build_marks") if mark.startswith("paused")]


def test_a_late_notification_of_a_copied_file_is_put_right(zone: Zone) -> None:
    first = zone.land(5)
    zone.land(5)
    lose(zone.pipes)
    before = zone.load()
    zone.pipes.notify(first.source_file)
    assert zone.deliver() == 1
    assert len(zone.rows(f"select 1 as one from raw.{FEED}")) == 15
    report = zone.load()
    assert counts(report) == (0, 0, 1, 0)
    # Its days are built again: the repeat was there for a while.
    assert snowflake_raw.dirty_days(zone.con, before.load_seq) == [date(2026, 6, 1)]
    assert zone.content() == zone.embedded_content()
    assert counts(zone.load()) == (0, 0, 0, 0)


def test_a_recreated_pipe_that_brings_everything_again_is_put_right(zone: Zone) -> None:
    landed = [zone.land(5), zone.land(4), zone.land_owners("day-1", ["o1", "o2"])]
    zone.deliver()
    zone.deliver("owners")
    zone.load()
    run(zone.con, "insert into raw.build_marks (mark, load_seq) values ('cur.owners', 3), ('warehouse', 3)")
    for feed in (FEED, "owners"):
        zone.pipes.recreate(feed, utc_now())
    new = zone.land(3)
    for manifest in [*landed, new]:
        zone.pipes.notify(manifest.source_file)
    lose_duplicates = dict.fromkeys(zone.pipes.queued[FEED])
    zone.pipes.queued[FEED] = [*lose_duplicates]
    zone.deliver()
    zone.deliver("owners")
    assert counts(zone.load()) == (1, 0, 3, 0)
    assert zone.content() == zone.embedded_content()
    # Models of records are built whole, the rest goes by days.
    built = zone.rows("select mark from raw.build_marks where mark in ('cur.owners', 'warehouse')")
    assert built == [("warehouse",)]


def test_a_file_that_its_pipe_brought_twice_before_any_load_is_put_right(zone: Zone) -> None:
    manifest = zone.land(5)
    zone.deliver()
    zone.pipes.recreate(FEED, utc_now())
    zone.pipes.notify(manifest.source_file)
    zone.deliver()
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert zone.content() == zone.embedded_content()


def test_a_range_that_is_there_in_part_is_put_right(zone: Zone) -> None:
    zone.land(5)
    zone.deliver()
    run(zone.con, f"delete from raw.{FEED} where kafka_offset = 2")
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert zone.content() == zone.embedded_content()


def test_forgotten_ranges_come_again(zone: Zone) -> None:
    forgotten = zone.land(5)
    zone.land_owners("day-1", ["o1"])
    zone.load()
    run(zone.con, f"delete from raw.{FEED} where kafka_offset = 2")
    assert snowflake_raw.forget_ranges(zone.con, [forgotten]) == 4
    lose(zone.pipes)
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert zone.content() == zone.embedded_content()


# Redactions.


@pytest.mark.parametrize("by_pipe", [True, False])
def test_redacted_rows_do_not_stay_whoever_brought_them(zone: Zone, by_pipe: bool) -> None:
    zone.land(5)
    zone.land(5, device="PW-2")
    zone.land_owners("day-1", ["o1", "o2"])
    redact(zone, owners=("o2",))
    if by_pipe:
        zone.deliver()
        zone.deliver("owners")
    else:
        lose(zone.pipes)
    report = zone.load()
    assert counts(report) == ((3, 0, 0, 0) if by_pipe else (0, 3, 0, 0))
    assert (report.rows_by_feed, report.redactions) == ({FEED: 7, "owners": 1}, 1)
    assert zone.rows("select owner_id from raw.owners") == [("o1",)]
    assert zone.content() == zone.embedded_content()
    assert counts(zone.load()) == (0, 0, 0, 0)


def test_rows_that_are_redacted_later_are_taken_out_and_their_days_built_again(zone: Zone) -> None:
    zone.land(5)
    zone.land_owners("day-1", ["o1", "o2"])
    loaded = zone.load()
    redact(zone, owners=("o2",))
    report = zone.load()
    assert (report.redactions, report.removed_rows) == (1, 4)
    assert snowflake_raw.redacted_days(zone.con, loaded.load_seq) == [date(2026, 6, 1)]
    assert snowflake_raw.redacted_days(zone.con, report.load_seq) is None
    assert snowflake_raw.dirty_days(zone.con, loaded.load_seq) == [date(2026, 6, 1)]
    assert zone.content() == zone.embedded_content()
    assert snowflake_raw.applied_redactions(zone.con) == {"r1"}
    assert zone.load().redactions == 0
    # The emulator's temporary tables outlive their session, so what a load leaves is seen here.
    assert zone.rows(
        "select table_name from information_schema.tables where table_schema = 'RAW'"
        " and (table_name ilike 'redacted%' or table_name ilike 'covered%')"
    ) == [("REDACTED_RANGES",)]


def test_what_an_account_still_holds_of_a_redaction_is_found_until_it_is_gone(zone: Zone) -> None:
    zone.land(5)
    zone.land_owners("day-1", ["o1", "o2"])
    zone.load()
    run(zone.con, "create table anl.daily_activity (pet_id varchar, event_date date, event_count number)")
    run(zone.con, "create table anl.telemetry_events (pet_id varchar, event_date date)")
    run(zone.con, "insert into anl.daily_activity values ('p1', '2026-06-01', 2), ('p2', '2026-06-01', 1)")
    run(zone.con, "insert into anl.telemetry_events values ('p1', '2026-06-01'), ('p2', '2026-06-01')")
    redact(zone, owners=("o2",))
    redactions = load_redactions(zone.store)
    assert [str(one) for one in account_leftovers(zone.con, redactions)] == [
        "raw.owners: 1 redacted rows",
        "raw.telemetry_events: 3 redacted rows",
        "anl.daily_activity: 1 rows that count events which are gone",
    ]
    zone.load()
    run(zone.con, "update anl.daily_activity set event_count = 1")
    assert account_leftovers(zone.con, redactions) == []
    assert account_leftovers(zone.con, Redactions()) == []


def test_a_redacted_range_that_comes_again_is_put_right_without_the_redacted_rows(zone: Zone) -> None:
    manifest = zone.land(5)
    redact(zone)
    zone.load()
    zone.pipes.recreate(FEED, utc_now())
    zone.pipes.notify(manifest.source_file)
    zone.deliver()
    assert counts(zone.load()) == (0, 0, 1, 0)
    assert zone.content() == zone.embedded_content()


def test_a_range_whose_original_was_purged_is_copied_from_what_is_left_of_it(zone: Zone) -> None:
    zone.land(5)
    lose(zone.pipes)
    redact(zone)
    purge(zone.store, list_manifests(zone.store), datetime(2026, 9, 1), 60)
    assert [info.key for info in zone.store.list("redacted/")]
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert zone.rows(f"select count(*) as n from raw.{FEED}") == [(2,)]
    assert zone.content() == zone.embedded_content()


# Quarantine.


@pytest.mark.parametrize("by_pipe", [True, False])
def test_quarantined_rows_do_not_stay_whoever_brought_them(zone: Zone, by_pipe: bool) -> None:
    landed, other = zone.land(5), zone.land(5, device="PW-2")
    zone.land_owners("day-1", ["o1", "o2"])
    # Of the first range one row is redacted and quarantined.
    redact(zone)
    quarantine(zone, landed, other)
    if by_pipe:
        zone.deliver()
        zone.deliver("owners")
    else:
        lose(zone.pipes)
    report = zone.load()
    assert counts(report) == ((3, 0, 0, 0) if by_pipe else (0, 3, 0, 0))
    assert (report.rows_by_feed, report.redactions) == ({FEED: 5, "owners": 2}, 2)
    assert zone.content() == zone.embedded_content()
    assert counts(zone.load()) == (0, 0, 0, 0)


def test_a_row_that_is_quarantined_later_leaves_and_comes_back_when_it_is_released(zone: Zone) -> None:
    landed = zone.land(5)
    zone.land(5)
    loaded = zone.load()
    entered = quarantine(zone, landed)
    report = zone.load()
    assert counts(report) == (0, 1, 0, 0)
    assert zone.rows(f"select count(*) as n from raw.{FEED}") == [(9,)]
    assert snowflake_raw.dirty_days(zone.con, loaded.load_seq) == [date(2026, 6, 1)]
    assert zone.content() == zone.embedded_content()
    found = account_findings(zone.con, zone.store, zone.pipes, datetime(2026, 9, 1), 0)
    assert (found.to_reload, found.ranges) == ((), 2)
    last = Span(landed.stream_id, landed.partition, landed.end - 1, landed.end)
    assert snowflake_raw.count_rows_in(zone.con, [last]) == 0
    assert snowflake_raw.count_rows_in(zone.con, [msgspec.structs.replace(last, start=0)]) == 4
    put_entry(zone.store, quarantine_entry("it was right", "ann", datetime(2026, 6, 21), releases=entered))
    assert counts(zone.load()) == (0, 1, 0, 0)
    assert zone.rows(f"select count(*) as n from raw.{FEED}") == [(10,)]
    assert zone.content() == zone.embedded_content()


# Files that are not what they should be.


def overwritten(store: S3Store, manifest: Manifest, change: Callable[[pa.Table], pa.Table]) -> None:
    table = change(pq.read_table(io.BytesIO(store.get(manifest.source_file))))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    replace(store, manifest.source_file, sink.getvalue())


def replace(store: S3Store, key: str, data: bytes) -> None:
    store.delete(key)
    store.put_new(key, data)


def as_text(table: pa.Table) -> pa.Table:
    return table.set_column(
        table.schema.get_field_index("step_count"), "step_count", pa.array(["many"] * table.num_rows)
    )


BAD_FILES: list[tuple[Callable[[S3Store, Manifest], None], str, str]] = [
    (lambda store, m: store.delete(m.source_file), "file gone", "5 rows"),
    (lambda store, m: replace(store, m.source_file, b"nothing"), "file broken", "Parquet"),
    (lambda store, m: overwritten(store, m, as_text), "file drifted", "'step_count' is string"),
    (
        lambda store, m: overwritten(store, m, lambda table: table.drop_columns(["device_id"])),
        "file drifted",
        "'device_id' is missing",
    ),
    (
        lambda store, m: overwritten(store, m, lambda table: table.slice(0, 3)),
        "file different",
        "says 5 rows in [25, 30), it has 3",
    ),
]


def test_files_that_are_not_what_landed_are_named_and_the_others_are_loaded(zone: Zone) -> None:
    zone.land(5)
    bad = [zone.land(5) for _ in BAD_FILES]
    zone.land(5)
    zone.land_owners("day-1", ["o1"])
    lose(zone.pipes)
    landed = {m.source_file: zone.store.get(m.source_file) for m in bad}
    for manifest, (harm, _, _) in zip(bad, BAD_FILES, strict=True):
        harm(zone.store, manifest)
    with pytest.raises(LoadRefusedError) as raised:
        zone.load()
    gaps = {gap.where: gap for gap in raised.value.gaps}
    assert len(raised.value.gaps) == len(gaps) == len(BAD_FILES)
    for manifest, (_, kind, said) in zip(bad, BAD_FILES, strict=True):
        gap = gaps[manifest.source_file]
        assert (gap.kind.name, said in gap.detail) == (kind, True), gap
        assert manifest.source_file in str(raised.value)
        assert gap.kind.fix in str(raised.value)
    assert counts(raised.value.report) == (0, 3, 0, 0)
    assert zone.pipes.state_of(FEED) == RUNNING
    for key, data in landed.items():
        zone.store.delete(key)
        zone.store.put_new(key, data)
    lose(zone.pipes)
    assert counts(zone.load()) == (0, len(BAD_FILES), 0, 0)
    assert zone.content() == zone.embedded_content()


@pytest.mark.parametrize(
    ("harm", "kind"), [(BAD_FILES[0][0], "file gone"), (BAD_FILES[2][0], "file drifted")]
)
def test_one_bad_file_alone_is_named(
    zone: Zone, harm: Callable[[S3Store, Manifest], None], kind: str
) -> None:
    bad = zone.land(5)
    harm(zone.store, bad)
    lose(zone.pipes)
    with pytest.raises(LoadRefusedError) as raised:
        zone.load()
    assert [(gap.kind.name, gap.where) for gap in raised.value.gaps] == [(kind, bad.source_file)]


def test_a_file_of_a_newer_release_is_refused_before_anything(zone: Zone) -> None:
    newer = msgspec.structs.replace(zone.land(5), schema_version=99)
    with pytest.raises(Exception, match="schema version 99"):
        zone.load([newer])
    assert zone.rows("select 1 as one from raw.load_history") == []


# Loads that die, and loads at once.


def test_a_load_may_die_before_any_of_its_statements(zone: Zone) -> None:
    """One load that adopts, copies, mends and redacts, cut short before each statement it sends."""
    again = zone.land(3)
    zone.load()
    zone.pipes.recreate(FEED, utc_now())
    zone.pipes.notify(again.source_file)
    zone.land(4)
    zone.deliver()
    zone.land(5)
    zone.land_owners("day-1", ["o1", "o2"])
    lose(zone.pipes)
    redact(zone, owners=("o2",))
    expected = zone.embedded_content()
    cut = 0
    while True:
        cut += 1
        assert cut < 500
        with open_snowflake(zone.settings, {}) as con:
            dying = DyingSession(con, left=cut)
            try:
                snowflake_raw.load_pending(dying, zone.store, list_manifests(zone.store), zone.pipes)  # type: ignore[arg-type]
            except KeyboardInterrupt:
                continue
        break
    assert cut > 20
    assert zone.content() == expected
    assert zone.pipes.state_of(FEED) == RUNNING
    assert (counts(zone.load()), marks(zone)) == ((0, 0, 0, 0), [])


def test_two_loads_at_once_bring_a_range_once(zone: Zone) -> None:
    zone.land(5)
    zone.deliver()
    zone.load()
    zone.land(5)
    zone.deliver()
    with open_snowflake(zone.settings, {}) as other, transaction(other):
        snowflake_raw._take_lock(other)
        # On Snowflake the second waits for the first; the emulator refuses it.
        with pytest.raises(SnowflakeError, match=r"(?i)conflict"):
            zone.load()
    assert counts(zone.load()) == (1, 0, 0, 0)
    assert zone.content() == zone.embedded_content()


def test_a_load_that_knows_fewer_redactions_than_raw_brings_nothing(zone: Zone) -> None:
    zone.land(5)
    zone.deliver()
    zone.load()
    zone.land(5)
    zone.deliver()
    with pytest.MonkeyPatch.context() as patch:
        # It read the redactions before the one that another load applied.
        patch.setattr(snowflake_raw, "load_redactions", lambda _: Redactions())
        run(
            zone.con,
            "insert into raw.redactions (redaction_id, event_dates, load_seq, applied_at)"
            " select 'r1', parse_json('[]'), 9, '2026-06-01'::timestamp_ntz",
        )
        with pytest.raises(ConcurrentLoadError, match="run it again"):
            zone.load()
    assert zone.rows("select count(*) as n from raw.load_history") == [(1,)]


def test_a_range_that_another_load_entered_meanwhile_is_left_out(zone: Zone) -> None:
    zone.land(5)
    lose(zone.pipes)
    manifests = list_manifests(zone.store)
    found = snowflake_raw.loaded_keys(zone.con)
    assert found == set()
    with pytest.MonkeyPatch.context() as patch:
        # Both read the ledger when it was empty.
        zone.load()
        patch.setattr(snowflake_raw, "loaded_keys", lambda *_: found)
        patch.setattr(snowflake_raw, "counted_files", stale_counts(snowflake_raw.counted_files))
        assert counts(zone.load(manifests)) == (0, 0, 0, 0)
    assert zone.content() == zone.embedded_content()


def stale_counts(counted: Callable[..., Any]) -> Callable[..., Any]:
    """What raw held before the other load."""
    return lambda con, feed, manifests, table=None: counted(con, feed, manifests, table) if table else {}


# A law: whatever pipes, loads and deaths do in whatever order, raw ends up as the embedded loader has it.

STEPS = st.one_of(
    # A range of no messages is never claimed: the next one would begin where it does.
    st.tuples(st.just("land"), st.integers(1, 4)),
    st.tuples(st.just("extract"), st.integers(1, 3)),
    st.tuples(st.just("deliver"), st.integers(1, 3)),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("notify again"), st.integers(0, 5)),
    st.tuples(st.just("recreate"), st.just(0)),
    st.tuples(st.just("redact"), st.integers(0, 1)),
    st.tuples(st.just("load"), st.just(0)),
    st.tuples(st.just("die"), st.integers(1, 25)),
)


# An example takes some ten seconds of a quiet core.
@pytest.mark.timeout(1800)
@settings(
    max_examples=settings.default.max_examples // 50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=6, max_size=14))
def test_any_interleaving_ends_with_each_row_once(
    s3_endpoint: str,
    sign_in_to: Callable[[str], SnowflakeSettings],
    tmp_path: Path,
    steps: list[tuple[str, int]],
) -> None:
    with landing_zone(s3_endpoint, tmp_path, sign_in_to) as zone:
        for number, (step, argument) in enumerate(steps):
            take(zone, step, argument, number)
        zone.load()
        assert zone.content() == zone.embedded_content()
        assert counts(zone.load()) == (0, 0, 0, 0)
        assert {*zone.pipes.states.values()} <= {RUNNING}


def take(zone: Zone, step: str, argument: int, number: int) -> None:
    landed = list_manifests(zone.store)
    if step == "land":
        zone.land(argument, device=f"PW-{argument % 2}")
    elif step == "extract":
        zone.land_owners(f"day-{number}", [f"o{n}" for n in range(argument)])
    elif step == "deliver":
        zone.deliver(count=argument)
        zone.deliver("owners", argument)
    elif step == "lose":
        lose(zone.pipes)
    elif step == "notify again" and landed:
        zone.pipes.notify(landed[argument % len(landed)].source_file)
    elif step == "recreate":
        zone.pipes.recreate(FEED, utc_now())
    elif step == "redact":
        redact(zone, device=f"PW-{argument}", owners=(f"o{argument}",), number=number)
    elif step == "load":
        zone.load()
    elif step == "die":
        with open_snowflake(zone.settings, {}) as con, contextlib.suppress(KeyboardInterrupt):
            dying: Any = DyingSession(con, left=argument)
            snowflake_raw.load_pending(dying, zone.store, landed, zone.pipes)


# Reconciliation.


def findings(zone: Zone, **options: Any) -> Any:
    return account_findings(zone.con, zone.store, zone.pipes, utc_now(), **{"grace_s": 0, **options})


def kinds(found: Any) -> dict[str, str]:
    return {gap.kind.name: gap.where for gap in found.gaps}


def test_what_agrees_has_no_findings(zone: Zone) -> None:
    zone.land(5)
    zone.land(4, rejected=1)
    zone.land_owners("day-1", ["o1"])
    redact(zone)
    zone.deliver()
    zone.load()
    quiet(zone)
    found = findings(zone)
    assert (found.gaps, found.passed, found.ranges) == ((), True, 3)


def quiet(zone: Zone) -> None:
    """Pipes that have heard of everything, however old these files claim to be."""
    zone.pipes.heard_at = utc_now()


def test_each_disagreement_is_named_with_its_fix(zone: Zone) -> None:
    again, short = zone.land(5), zone.land(5)
    lose(zone.pipes)
    zone.load()
    quiet(zone)
    # Twice, in part, missing, gone, brought and not adopted, of nobody.
    zone.pipes.recreate(FEED, utc_now())
    zone.pipes.notify(again.source_file)
    zone.deliver()
    run(zone.con, f"delete from raw.{FEED} where kafka_offset = {short.start}")
    zone.land(5)
    lose(zone.pipes)
    gone = zone.land(5)
    lose(zone.pipes)
    zone.store.delete(gone.source_file)
    zone.land(5)
    zone.deliver()
    columns = ", ".join(name for name in feed_schema(FEED).names if name not in ("stream_id", "source_file"))
    run(
        zone.con,
        f"insert into raw.{FEED} (stream_id, source_file, {columns})"
        f" select 'nobody', 'nowhere', {columns} from raw.{FEED} limit 1",
    )
    found = findings(zone)
    named = kinds(found)
    assert {*named} == {
        "loaded twice",
        "rows differ",
        "not loaded",
        "file gone",
        "not adopted",
        "unknown rows",
        "pipe recreated",
    }
    assert named["file gone"] == gone.source_file
    assert [m.range_key for m in found.to_reload] == [short.range_key]
    assert not found.passed
    assert all(gap.kind.fix for gap in found.gaps)
    # A reload and a load put right what can be.
    snowflake_raw.forget_ranges(zone.con, found.to_reload)
    with pytest.raises(LoadRefusedError):
        zone.load()
    run(zone.con, f"delete from raw.{FEED} where stream_id = 'nobody'")
    assert {*kinds(findings(zone))} == {"not loaded", "file gone"}


def test_what_is_on_its_way_is_no_finding(zone: Zone) -> None:
    zone.land(5, claimed_at=utc_now())
    zone.deliver()
    quiet(zone)
    found = findings(zone, grace_s=600)
    assert (found.gaps, found.pending) == ((), 1)


def test_pipes_that_do_not_bring_files_are_named(zone: Zone) -> None:
    bad = zone.land(5)
    zone.pipes.receive()
    overwritten(zone.store, bad, as_text)
    zone.deliver()
    zone.pipes.states[FEED] = "STOPPED_STAGE_DROPPED"
    with pytest.raises(LoadRefusedError):
        zone.load()
    named = kinds(findings(zone))
    assert {*named} >= {"pipe stopped", "file skipped", "file drifted"}
    assert "STOPPED_STAGE_DROPPED" in str(findings(zone))
    # A pipe that Snowflake stopped is left as it is.
    assert zone.pipes.calls == []
