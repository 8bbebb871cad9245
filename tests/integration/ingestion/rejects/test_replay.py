"""Replays of rejects land each message once, whatever dies, races or comes later."""

import dataclasses
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts import telemetry
from contracts.decoders import DECODERS
from contracts.telemetry import TYPES
from ingestion.collector.consent import OptOut
from ingestion.rejects import replay
from ingestion.rejects.reading import RejectFilter, RejectFilterError, list_rejects
from lake import landing, layout
from lake.landing import list_claims, list_manifests
from lake.store import ObjectStore


class Wrapped(ObjectStore):
    """A store that calls back around each put: `on_put(number, key, put)`."""

    def __init__(self, store: ObjectStore, on_put: Callable[[int, str, Callable[[], None]], None]) -> None:
        self._store, self._on_put, self._puts = store, on_put, 0
        self.url = store.url

    def put_new(self, key: str, data: bytes) -> None:
        self._puts += 1
        self._on_put(self._puts, key, lambda: self._store.put_new(key, data))

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[Any]:
        return self._store.list(prefix, start_after, limit)

    def folders(self, prefix: str) -> tuple[str, ...]:
        return self._store.folders(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def uri(self, key: str) -> str:
        return self._store.uri(key)

    def filesystem(self) -> Any:
        return self._store.filesystem()

    def check(self) -> None:
        self._store.check()


class CrashError(Exception):
    """The process dies here."""


def land_some(lab: Any) -> None:
    """Two partitions, three ranges: good messages, some for later versions, some hopeless."""
    lab.land([lab.message(n, needs=1 + n % 3) for n in range(9)])
    lab.land([lab.message(n, needs=2) for n in range(9, 12)] + [b"{", b""])
    lab.land([lab.message(n, needs=1 + n % 2) for n in range(100, 106)], partition=1)


def test_a_fixed_decoder_lands_each_message_once_with_its_time_of_receipt(lab: Any) -> None:
    land_some(lab)
    before = {row["payload"]: row for row in lab.rows().to_pylist()}
    lab.release(2)
    report = lab.replay()
    assert lab.payloads() == lab.all_up_to(2)
    assert report.landed == {"version": len(lab.all_up_to(2)) - len(before)}
    assert report.still_rejected == {"version": 3, "malformed": 1, "empty": 1}
    sent_at = {body.decode(): offset for (_, offset), body in lab.sent.items()}
    for row in lab.rows().to_pylist():
        body = row["payload"]
        minute = (row["arrival_ts"] - lab.start).total_seconds() // 60
        assert minute == sent_at[body]
        assert row["source_system"] == lab.source
    again = lab.replay()
    assert again.landed == {} and again.ranges == 0
    assert again.before == report.landed.total()
    assert lab.payloads() == lab.all_up_to(2)


def test_what_a_collector_with_a_slow_clock_rejected_lands_with_its_time_of_receipt(lab: Any) -> None:
    """Whether a receipt is believed is a matter of the claim: the replay's is not behind any more."""
    slow = lab.start - timedelta(hours=1, seconds=1)
    rejected = lab.land([lab.message(n) for n in range(3)], claimed_at=slow).rejected_by_reason
    assert rejected == {"clock": 3}
    assert lab.replay().landed == {"clock": 3}
    rows = lab.rows()
    received = [lab.start + timedelta(minutes=n, seconds=2) for n in range(3)]
    assert sorted(rows["arrival_ts"].to_pylist()) == received


def test_what_cannot_have_been_received_then_stays_a_reject(lab: Any) -> None:
    lab.land([lab.message(n, needs=2) for n in range(2)])
    lab.release(2)
    report = lab.replay(not_before=lab.start + timedelta(minutes=1))
    assert (report.landed, report.still_rejected) == ({"version": 1}, {"clock": 1})


def test_later_versions_land_the_rest_and_old_rows_stay(lab: Any) -> None:
    land_some(lab)
    for version in (2, 3):
        lab.release(version)
        lab.replay()
        assert lab.payloads() == lab.all_up_to(version)
    replays = [m for m in list_manifests(lab.store) if layout.is_replay(m.stream_id)]
    assert {m.decoder for m in replays} == {"lab-v1@2", "lab-v1@3"}
    assert all(m.reject_object is None and m.rejected == 0 and m.offset_gaps == 0 for m in replays)


@pytest.mark.parametrize("answer", ["before", "lost"])
def test_a_replay_that_dies_at_any_put_is_finished_by_the_next(
    lab: Any, answer: str, monkeypatch: Any
) -> None:
    """Claims are small here, so that a replay makes several of them in a row."""
    monkeypatch.setattr(replay, "CLAIM_MESSAGES", 1)
    for die_at in itertools.count(1):
        lab.release(1)
        fresh = lab.another(f"lake-{die_at}")
        fresh.opt_out(name="s-0")
        land_some(fresh)
        lab.release(2)

        def dies(number: int, key: str, put: Callable[[], None], at: int = die_at) -> None:
            if number == at and answer == "before":
                raise CrashError(key)
            put()
            if number == at:
                raise CrashError(key)

        try:
            fresh.replay(Wrapped(fresh.store, dies))
        except CrashError:
            fresh.replay()
            assert fresh.payloads() == fresh.all_up_to(2)
        else:
            break
    # Claim, main object and manifest of each range, one of which the last death came after.
    claims = [c for c in list_claims(fresh.store) if layout.is_replay(c.stream_id)]
    assert die_at == 3 * len(claims) + 1 > 6


def test_a_replay_with_other_filters_finishes_what_another_left(lab: Any) -> None:
    land_some(lab)
    lab.release(2)

    def dies(number: int, key: str, put: Callable[[], None]) -> None:
        if key.startswith(layout.LANDING):
            raise CrashError(key)
        put()

    with pytest.raises(CrashError):
        lab.replay(Wrapped(lab.store, dies))
    report = lab.replay(reasons=["clock"])
    assert report.finished_claims == 1
    assert report.landed == {}
    assert {c.range_key for c in list_claims(lab.store)} == {m.range_key for m in list_manifests(lab.store)}


@pytest.mark.parametrize("prefix", [layout.CLAIMS, layout.LANDING, layout.MANIFESTS])
def test_a_replay_in_the_middle_of_another_takes_nothing_twice(lab: Any, prefix: str) -> None:
    """The second runs whole just before a put of the first, which then wakes up."""
    land_some(lab)
    lab.release(2)
    ran = []

    def overtaken(number: int, key: str, put: Callable[[], None]) -> None:
        if key.startswith(prefix) and not ran:
            ran.append(lab.replay())
        put()

    first = lab.replay(Wrapped(lab.store, overtaken))
    assert ran
    assert lab.payloads() == lab.all_up_to(2)
    if prefix == layout.CLAIMS:
        assert first.landed == {} and first.before > 0


def test_replays_at_once_share_the_work(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(replay, "CLAIM_MESSAGES", 2)
    land_some(lab)
    lab.release(3)
    starting = threading.Barrier(4)
    reports: list[Any] = []

    def work() -> None:
        starting.wait()
        reports.append(lab.replay())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    assert lab.payloads() == lab.all_up_to(3)


def test_a_newer_release_replays_while_an_older_one_is_under_way(lab: Any) -> None:
    """The claim is of version 2, the one who finds it has version 3 only."""
    land_some(lab)
    lab.release(2)

    def dies(number: int, key: str, put: Callable[[], None]) -> None:
        if key.startswith(layout.LANDING):
            raise CrashError(key)
        put()

    with pytest.raises(CrashError):
        lab.replay(Wrapped(lab.store, dies))
    lab.release(3)
    report = lab.replay()
    assert (report.finished_claims, report.closed_claims) == (1, 1)
    assert lab.payloads() == lab.all_up_to(3)
    [closed] = [m for m in list_manifests(lab.store) if m.gap_reason]
    assert closed.offset_gaps == closed.end - closed.start
    assert "lab-v1@2" in closed.gap_reason


def test_a_dry_run_counts_the_same_and_stores_nothing(lab: Any) -> None:
    land_some(lab)
    lab.release(2)
    keys = [info.key for info in lab.store.list("")]
    planned = lab.replay(dry_run=True)
    assert [info.key for info in lab.store.list("")] == keys
    done = lab.replay()
    assert planned.landed == done.landed
    assert planned.still_rejected == done.still_rejected
    assert lab.replay(dry_run=True).landed == {}


def test_filters_leave_the_others_for_later(lab: Any) -> None:
    land_some(lab)
    lab.release(2)
    assert lab.replay(reasons=["malformed"]).landed == {}
    assert lab.replay(decoders=["lab-v1@7"]).landed == {}
    by_day = lab.replay(day=lab.start.date())
    assert by_day.landed.total() > 0
    assert lab.payloads() == lab.all_up_to(2)
    with pytest.raises(RejectFilterError, match="malformed"):
        lab.replay(reasons=["odd"])
    with pytest.raises(RejectFilterError, match="lab-v1"):
        lab.replay(decoders=["lab-v9"])


def test_devices_opted_out_since_are_dropped_and_counted(lab: Any) -> None:
    land_some(lab)
    kept = len(lab.payloads())
    lab.opt_out(OptOut("d-1", lab.start, None), name="s-1")
    lab.release(2)
    report = lab.replay()
    assert report.dropped.total() > 0 and report.landed.total() > 0
    replayed = [row for row in lab.rows().to_pylist() if layout.is_replay(row["stream_id"])]
    assert len(replayed) == report.landed.total() == len(lab.payloads()) - kept
    assert "d-1" not in {row["device_id"] for row in replayed}
    manifests = [m for m in list_manifests(lab.store) if layout.is_replay(m.stream_id)]
    assert {m.consent_snapshot_id for m in manifests} == {"s-1"}
    assert sum(m.consent_dropped for m in manifests) == report.dropped.total()
    assert lab.replay().before == report.dropped.total() + report.landed.total()


def test_a_claim_is_finished_under_its_own_consent_snapshot(lab: Any) -> None:
    land_some(lab)
    lab.release(2)

    def dies(number: int, key: str, put: Callable[[], None]) -> None:
        if key.startswith(layout.LANDING):
            raise CrashError(key)
        put()

    with pytest.raises(CrashError):
        lab.replay(Wrapped(lab.store, dies))
    lab.opt_out(OptOut("d-1", lab.start, None), name="s-1")
    lab.replay()
    by_snapshot = {
        m.consent_snapshot_id: m for m in list_manifests(lab.store) if layout.is_replay(m.stream_id)
    }
    assert by_snapshot["s-0"].consent_dropped == 0
    assert by_snapshot["s-0"].rows > 0


def test_rejects_without_payload_stay(lab: Any) -> None:
    """Opted out when received: nothing was kept, so nothing can be replayed."""
    lab.opt_out(OptOut("d-1", lab.start, None), name="s-1")
    land_some(lab)
    lab.opt_out(name="s-2")
    lab.release(3)
    report = lab.replay()
    assert report.without_payload > 0
    replayed = {row["device_id"] for row in lab.rows().to_pylist() if layout.is_replay(row["stream_id"])}
    assert replayed == {"d-0", "d-2"}


def test_superseded_reject_objects_do_not_count(lab: Any, monkeypatch: Any) -> None:
    """A worker stored other rejects of a range whose main object another one wrote."""
    manifest = lab.land([lab.message(n, needs=2) for n in range(4)])
    assert manifest.reject_object
    stray = layout.reject_key("telemetry_events", lab.stream, 0, 0, "0" * 64)
    lab.store.put_new(stray, lab.store.get(manifest.reject_object))
    lab.release(2)
    assert lab.replay().landed == {"version": 4}
    assert list_rejects(lab.store, list_manifests(lab.store), RejectFilter()).total.rejected == 4


def test_purged_rejects_are_counted_and_left_alone(lab: Any) -> None:
    gone = lab.land([lab.message(n, needs=2) for n in range(4)])
    lab.land([lab.message(n, needs=2) for n in range(4, 6)])
    lab.store.delete(gone.reject_object)
    lab.release(2)
    report = lab.replay()
    assert (report.gone, report.landed) == (4, {"version": 2})
    found = list_rejects(lab.store, list_manifests(lab.store), RejectFilter())
    assert (found.gone, found.total.rejected, found.total.replayed) == (4, 2, 2)


def test_payloads_purged_under_a_claim_become_gaps(lab: Any) -> None:
    first = lab.land([lab.message(n, needs=2) for n in range(4)])
    lab.land([lab.message(n, needs=2) for n in range(4, 6)])
    lab.release(2)

    def dies(number: int, key: str, put: Callable[[], None]) -> None:
        if key.startswith(layout.LANDING):
            raise CrashError(key)
        put()

    with pytest.raises(CrashError):
        lab.replay(Wrapped(lab.store, dies))
    lab.store.delete(first.reject_object)
    lab.replay()
    assert lab.payloads() == sorted(lab.message(n, needs=2).decode() for n in (4, 5))
    [landed] = [m for m in list_manifests(lab.store) if layout.is_replay(m.stream_id)]
    assert (landed.rows, landed.offset_gaps) == (2, 4)
    assert lab.replay().ranges == 0


def test_many_rejects_land_in_ranges_of_bounded_size(lab: Any, monkeypatch: Any) -> None:
    from ingestion.rejects import reading

    monkeypatch.setattr(reading, "BATCH_MESSAGES", 7)
    monkeypatch.setattr(reading, "FETCH_BYTES", 1)
    monkeypatch.setattr(replay, "CLAIM_MESSAGES", 10)
    for start in range(0, 100, 25):
        lab.land([lab.message(n, needs=1 + n % 2) for n in range(start, start + 25)])
    lab.release(2)
    lab.replay()
    assert lab.payloads() == lab.all_up_to(2)
    claims = [c for c in list_claims(lab.store) if layout.is_replay(c.stream_id)]
    assert len(claims) > 2
    assert max(c.end - c.start for c in claims) < 10 + 7


def test_a_claim_made_while_the_chain_was_listed_is_followed(lab: Any, monkeypatch: Any) -> None:
    """A listing that shows the second claim but not the first must not lose the first one's offsets."""
    monkeypatch.setattr(replay, "CLAIM_MESSAGES", 2)
    land_some(lab)
    lab.release(2)
    lab.replay()
    hidden = layout.claim_key(layout.replay_stream(lab.stream), 0, 0)
    lab.release(3)

    class Skipping(Wrapped):
        def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[Any]:
            return (info for info in self._store.list(prefix, start_after, limit) if info.key != hidden)

    lab.replay(Skipping(lab.store, lambda number, key, put: put()))
    assert lab.payloads() == lab.all_up_to(3)


def test_columns_of_a_replayed_row_are_those_of_a_landed_one(lab: Any) -> None:
    lab.land([lab.message(0, needs=1)])
    lab.land([lab.message(1, needs=2, device="d-0")])
    lab.release(2)
    lab.replay()
    rows = lab.rows()
    assert rows.schema == landing.feed_schema("telemetry_events")
    first, second = sorted(rows.to_pylist(), key=lambda row: row["event_id"])
    assert {name for name in TYPES if first[name] != second[name]} == {"event_id", "event_ts"}


def test_collars_of_a_version_that_is_learned_later_are_replayed(lab: Any, monkeypatch: Any) -> None:
    """Version 2 counts in Fahrenheit; the release that knows it has a new decoder version."""
    event = {"event_ts": "2026-06-01T00:00:00Z", "device_id": "d"}
    lab.land(
        [
            json.dumps({**event, "event_id": "old", "body_temp_c": 38.5, "schema_version": 1}).encode(),
            json.dumps({**event, "event_id": "new", "temp_f": 101.3, "schema_version": 2}).encode(),
            json.dumps({**event, "event_id": "twice", "temp_f": 101.3, "schema_version": 2}).encode()[:-1]
            + b',"temp_f":99}',
        ],
        name="collar-v1",
    )
    assert list_manifests(lab.store)[0].rejected_by_reason == {"version": 2}

    def to_event(message: dict[str, Any]) -> dict[str, Any]:
        celsius = (message.pop("temp_f") - 32) * 5 / 9
        return message | {"body_temp_c": round(celsius, 2)}

    monkeypatch.setitem(telemetry.FORMS, 2, telemetry.Form(frozenset({"temp_f"}), to_event))
    monkeypatch.setitem(DECODERS, "collar-v1", dataclasses.replace(DECODERS["collar-v1"], version="2"))
    report = lab.replay()
    assert report.landed == {"version": 1}
    assert report.still_rejected == {"malformed": 1}
    rows = {row["event_id"]: row for row in lab.rows().to_pylist()}
    assert rows.keys() == {"old", "new"}
    assert [rows[name]["body_temp_c"] for name in ("old", "new")] == [Decimal("38.50"), Decimal("38.50")]
    assert (rows["new"]["schema_version"], rows["new"]["kafka_offset"]) == (2, 0)
