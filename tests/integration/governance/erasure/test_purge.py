"""Purging originals: proven, audited, resumable after a death at any put or deletion, by several at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from governance.erasure import purge as purging
from governance.erasure.leftovers import lake_leftovers
from governance.erasure.purge import PurgeError, PurgeReport, purge
from governance.erasure.scope import request_erasure
from ingestion.rejects.reading import RejectFilter, list_rejects
from lake import layout
from lake.landing import list_manifests
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.store import LocalStore, ObjectStore

from .conftest import DAY, NOW, START

Town = Any
Content = Any


class Dying(Exception):
    """The process ends here."""


class DyingStore(LocalStore):
    """A store whose process dies before, or after, its n-th put or deletion."""

    def __init__(self, root: Path, at: int, after: bool) -> None:
        super().__init__(root)
        self.left, self.after = at, after

    def _step(self, act: Any) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Dying
        act()
        if self.left == 0 and self.after:
            raise Dying

    def put_new(self, key: str, data: bytes) -> None:
        self._step(lambda: LocalStore.put_new(self, key, data))

    def delete(self, key: str) -> None:
        self._step(lambda: LocalStore.delete(self, key))


def erase(town: Town, owner_id: str, at: Any = NOW) -> None:
    request_erasure(
        town.store,
        owner_id,
        "request 12",
        at,
        30,
        load_redactions(town.store),
        load_replacements(town.store),
        list_manifests(town.store),
    )


def purge_in(store: ObjectStore, now: Any = NOW, rejects_days: int = 60, **options: Any) -> PurgeReport:
    return purge(store, list_manifests(store), now, rejects_days, **options)


def left(store: ObjectStore) -> list[str]:
    return [
        str(one)
        for one in lake_leftovers(
            store, list_manifests(store), load_redactions(store), load_replacements(store)
        )
    ]


def kept(table: pa.Table) -> pa.Table:
    """Rows that are not o1's: c1 belongs to it up to day 5."""
    theirs = [
        device == "c1" and moment < START + 5 * DAY
        for device, moment in zip(
            table["device_id"].to_pylist(), table["arrival_ts"].to_pylist(), strict=True
        )
    ]
    return table.filter(pa.array([not one for one in theirs]))


def objects(store: ObjectStore, *prefixes: str) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for prefix in prefixes for info in store.list(prefix)}


def test_a_purge_leaves_everything_but_the_redacted_rows(town: Town) -> None:
    before, records = town.rows(), {feed: town.rows(feed) for feed in ("owners", "pets", "clinic_visits")}
    manifests = list_manifests(town.store)
    erase(town, "o1")
    report = purge_in(town.store)
    # 5 days of telemetry, and one extract each of owners, pets, assignments and visits.
    assert (report.ranges, report.redacted_rows, report.cleared_payloads) == (9, 60 + 5, 5)
    assert report.deleted_objects == 9 + 5
    assert town.rows().equals(kept(before))
    assert len(town.rows("owners")) == len(records["owners"]) - 1
    assert town.rows("clinic_visits")["visit_id"].to_pylist() == ["v2-1", "v2-4", "v4-1", "v4-4"]
    assert left(town.store) == []
    assert list_manifests(town.store) == manifests
    # The dead letter keeps its row, its reason and nothing of the message; days 5 and 6 are p5's.
    payloads = [
        payload
        for data in objects(town.store, layout.REJECTS).values()
        for payload in pq.read_table(pa.BufferReader(data))["payload"].to_pylist()
    ]
    assert sorted(map(str, payloads)) == sorted(["None"] * 5 + [str(b'{"device_id": "c1", ')] * 2)


def test_the_audit_says_what_went_and_names_nobody(town: Town) -> None:
    original = {m.range_key: m for m in list_manifests(town.store)}
    erase(town, "o1")
    purge_in(town.store)
    audits = [
        msgspec.json.decode(data, type=purging.Audit)
        for data in objects(town.store, layout.REDACTION_AUDIT).values()
    ]
    assert len(audits) == 9
    for audit in audits:
        manifest = original[audit.stream_id, audit.partition, audit.start]
        assert audit.deleted[0].key == manifest.source_file
        assert audit.deleted[0].sha256 == manifest.sha256
        assert audit.deleted[0].rows == manifest.rows == audit.in_force[0].rows + audit.redacted_rows
        assert (audit.deleted_at, audit.redaction_ids) == (NOW, load_redactions(town.store).ids)
    text = json.dumps([str(audit) for audit in audits])
    for name in ("Person", "example.org", '"o1"', "'o1'", "'p1'", "'c1'"):
        assert name not in text


def test_a_dry_run_counts_and_changes_nothing(town: Town) -> None:
    erase(town, "o1")
    before = objects(town.store, "")
    planned = purge_in(town.store, dry_run=True)
    assert objects(town.store, "") == before
    done = purge_in(town.store)
    assert (planned.ranges, planned.redacted_rows, planned.cleared_payloads, planned.deleted_objects) == (
        done.ranges,
        done.redacted_rows,
        done.cleared_payloads,
        done.deleted_objects,
    )


def test_a_second_purge_finds_nothing(town: Town) -> None:
    erase(town, "o1")
    purge_in(town.store)
    before = objects(town.store, "")
    assert purge_in(town.store, NOW + DAY) == PurgeReport()
    assert objects(town.store, "") == before


def steps_of_a_purge(town: Town) -> int:
    """How many puts and deletions a whole purge makes."""
    counting = DyingStore(Path(town.store.url), 10**6, after=True)
    purge_in(counting)
    return 10**6 - counting.left


# A purge keeps what it knows in the lake alone: a death after one step is a death before the next.
@pytest.mark.parametrize(
    "after", [False, pytest.param(True, marks=pytest.mark.full)], ids=["before", "after"]
)
def test_a_purge_that_dies_at_any_step_is_finished_by_the_next(
    tmp_path: Path, make_town: Any, after: bool
) -> None:
    town = make_town(days=2)
    lake = Path(town.store.url)
    before = town.rows()
    erase(town, "o1")
    shutil.copytree(lake, tmp_path / "start")
    steps = steps_of_a_purge(town)
    expected = {key: data for key, data in objects(town.store, "").items() if "audit" not in key}
    assert (
        steps == 1 + 6 + 2 + 6 + 8 + 6
    )  # visits put aside, replacements, dead letters, pointers, deletions, audits
    for step in range(1, steps + 1):
        shutil.rmtree(lake)
        shutil.copytree(tmp_path / "start", lake)
        with pytest.raises(Dying):
            purge_in(DyingStore(lake, step, after))
        # Whatever was reached, readers see every row that is not redacted exactly once.
        assert kept(town.rows()).equals(kept(before)), step
        purge_in(town.store)
        assert left(town.store) == [], step
        assert town.rows().equals(kept(before)), step
        found = objects(town.store, "")
        assert {key: data for key, data in found.items() if "audit" not in key} == expected, step
        assert sum("audit" in key for key in found) == 6


def test_a_later_erasure_replaces_the_replacement(town: Town, tmp_path: Path, content: Content) -> None:
    warehouse = tmp_path / "w.duckdb"
    town.load(warehouse)
    for owner_id in ("o1", "o2"):
        erase(town, owner_id)
        town.load(warehouse)
        purge_in(town.store)
        assert left(town.store) == []
    pointers = load_replacements(town.store)
    assert {len(pointers.by_range[m.range_key]) for m in list_manifests(town.store) if m.feed != "pets"} <= {
        1,
        2,
    }
    assert set(town.rows()["device_id"].to_pylist()) == {"c3", "c4"}
    town.load(tmp_path / "r.duckdb")
    assert content(tmp_path / "r.duckdb") == content(warehouse)


def test_two_purges_at_once_do_no_harm(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    before = town.rows()
    erase(town, "o1")
    prove, interrupted = purging._prove, []

    def prove_and_be_overtaken(*arguments: Any) -> None:
        prove(*arguments)
        if not interrupted:
            interrupted.append(True)
            # Another one, with a larger ledger, does all of its work between proof and pointer.
            erase(town, "o3", NOW + DAY)
            purge_in(town.store)

    monkeypatch.setattr(purging, "_prove", prove_and_be_overtaken)
    purge_in(town.store)
    assert interrupted
    purge_in(town.store)
    assert left(town.store) == []
    mine = kept(before)
    assert set(town.rows()["kafka_offset"].to_pylist()) == {
        row["kafka_offset"]
        for row in mine.to_pylist()
        if row["device_id"] != "c3" and not (row["device_id"] == "c4" and row["arrival_ts"] < START + 3 * DAY)
    }


def test_an_original_that_a_zombie_puts_again_is_found_and_deleted(town: Town) -> None:
    [manifest] = [m for m in list_manifests(town.store) if m.start == 0 and m.feed == "telemetry_events"]
    original = town.store.get(manifest.source_file)
    erase(town, "o1")
    purge_in(town.store)
    town.store.put_new(manifest.source_file, original)
    assert left(town.store) == [f"{manifest.source_file}: 12 redacted rows"]
    assert purge_in(town.store).deleted_objects == 1
    assert left(town.store) == []


def test_a_replacement_that_does_not_prove_right_deletes_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(town, "o1")
    before = objects(town.store, layout.LANDING, layout.REJECTS)
    written = purging.parquet_bytes
    monkeypatch.setattr(purging, "parquet_bytes", lambda table, *more: written(table.slice(1), *more))
    with pytest.raises(PurgeError, match="Nothing was deleted"):
        purge_in(town.store)
    assert objects(town.store, layout.LANDING) == {
        key: data for key, data in before.items() if key.startswith(layout.LANDING)
    }
    assert not load_replacements(town.store).by_range


def test_dead_letters_are_listed_without_the_payloads_that_were_cleared(town: Town) -> None:
    erase(town, "o1")
    purge_in(town.store)
    found = list_rejects(town.store, list_manifests(town.store), RejectFilter())
    assert (found.gone, found.total.rejected, found.total.without_payload) == (0, 7, 5)


def test_dead_letters_go_after_their_retention(town: Town) -> None:
    def days() -> int:
        return sum(1 for _ in town.store.list(layout.REJECTS))

    assert days() == 7
    # Claimed on days 0 to 6; days 0 to 2 are older than 30 days on the third day after.
    assert purge_in(town.store, START + 33 * DAY, 30, dry_run=True).expired_rejects == 3
    assert days() == 7
    assert purge_in(town.store, START + 33 * DAY, 30).expired_rejects == 3
    assert days() == 4
    erase(town, "o1")
    assert purge_in(town.store, START + 33 * DAY, 30).cleared_payloads == 2
