"""The real files against an independent computation: every figure, every row accounted for, and landing."""

import importlib.util
import os
from collections import Counter
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contracts.decoders import DECODERS
from contracts.telemetry import NOT_BEFORE, believed_receipts, check_clock
from ingestion.extracts.load import RealData, load_all
from ingestion.extracts.model import RecordExtract
from lake.extract import land_extract
from lake.landing import utc_now
from lake.store import LocalStore

ROOT = Path(__file__).parents[4]
LATE_AFTER_S = 60


@pytest.fixture(scope="module")
def data_dir() -> Path:
    stated = os.environ.get("PETWELLNESS_REAL_DATA")
    folder = Path(stated) if stated else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at '{folder}'; set PETWELLNESS_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="module")
def reference(data_dir: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("realdata_reference", ROOT / "tests/realdata_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures: dict[str, Any] = module.compute(data_dir)
    return figures


@pytest.fixture(scope="module")
def real(data_dir: Path) -> RealData:
    return load_all(data_dir)


@pytest.fixture(scope="module")
def events(real: RealData) -> dict[str, list[tuple[datetime, dict[str, Any]]]]:
    """Receipts and decoded events of each topic, in order of receipt; a reject fails the test."""
    decoders = {decoder.topic: decoder.decode for decoder in DECODERS.values()}
    decoded: dict[str, list[tuple[datetime, dict[str, Any]]]] = {}
    for wave in real.telemetry_sources.values():
        decoded[wave.topic] = [
            (
                datetime.fromtimestamp(message.arrival_ts_ms / 1000, UTC).replace(tzinfo=None),
                decoders[wave.topic](message.value),
            )
            for batch in wave
            for message in batch
        ]
    return decoded


def by_day(real: RealData, feed: str) -> dict[str, RecordExtract]:
    return {
        f"{one.extracted_at:%Y-%m-%d}": one
        for one in real.extracts
        if one.source == "zurich-registry" and one.feed == feed
    }


def problems(real: RealData, reason: str) -> Counter[str]:
    return Counter(problem.file for problem in real.problems if problem.reason == reason)


def keys(extract: RecordExtract) -> list[str]:
    found: list[str] = extract.table.column("business_key").to_pylist()
    return found


def of(real: RealData, source: str, feed: str) -> RecordExtract:
    [extract] = [one for one in real.extracts if (one.source, one.feed) == (source, feed)]
    return extract


def test_every_row_is_a_record_or_a_problem(real: RealData) -> None:
    stated_by = {
        ("zurich-registry", "pets"): "registry/zurich_2*_hundehalter.csv",
        ("longbeach-shelter", "clinic_visits"): "visits/longbeach_animal_shelter.parquet",
        ("akc-breeds", "breeds"): "breeds/akc-data.csv",
        ("movebank", "device_assignments"): "telemetry/cats_uk_reference.csv",
    }
    for (source, feed), pattern in stated_by.items():
        rows = sum(count for file, count in real.rows_read.items() if fnmatch(file, pattern))
        set_aside = sum(one.set_aside for one in real.problems if fnmatch(one.file, pattern))
        records = sum(one.table.num_rows for one in real.extracts if (one.source, one.feed) == (source, feed))
        assert records > 0
        assert records + set_aside == rows, (source, feed)
    assert all(problem.row > 0 and problem.file in real.rows_read for problem in real.problems)


def test_every_telemetry_row_is_a_message(real: RealData) -> None:
    for wave in real.telemetry_sources.values():
        assert len(wave.messages) + len(wave.problems) == wave.rows_read
        receipts = [message.arrival_ts_ms for message in wave.messages]
        assert receipts == sorted(receipts)
    assert sorted(wave.rows_read for wave in real.telemetry_sources.values()) == [16_954, 18_215]


def test_owners_and_dogs_of_each_snapshot(real: RealData, reference: dict[str, Any]) -> None:
    registry = reference["registry"]
    owners, pets = by_day(real, "owners"), by_day(real, "pets")
    assert {day: one.table.num_rows for day, one in owners.items()} == registry["owners"]
    assert {day: one.table.num_rows for day, one in pets.items()} == registry["dogs"]
    for one in (*owners.values(), *pets.values()):
        assert one.complete
        assert len(set(keys(one))) == one.table.num_rows


def test_moves_between_snapshots(real: RealData, reference: dict[str, Any]) -> None:
    districts = {
        day: dict(zip(keys(one), one.table.column("district").to_pylist(), strict=True))
        for day, one in by_day(real, "owners").items()
    }
    found: dict[str, dict[str, int]] = {name: {} for name in ("district_changed", "left", "came", "returned")}
    seen: set[str] = set()
    for (_, old), (day, now) in pairwise(districts.items()):
        both = old.keys() & now.keys()
        found["district_changed"][day] = sum(
            old[key] is not None and now[key] is not None and old[key] != now[key] for key in both
        )
        found["left"][day] = len(old.keys() - now.keys())
        found["came"][day] = len(now.keys() - old.keys())
        found["returned"][day] = len((now.keys() - old.keys()) & seen)
        seen |= old.keys()
    assert found == {name: reference["registry"][name] for name in found}
    assert found["district_changed"] == {"2016-03-07": 88, "2017-03-08": 173, "2020-03-06": 306}


def test_duplicate_rows_and_impossible_years(real: RealData, reference: dict[str, Any]) -> None:
    registry = reference["registry"]
    for reason, name in (
        ("duplicate_row", "duplicate_rows"),
        ("impossible_birth_year", "impossible_birth_years"),
    ):
        counted = problems(real, reason)
        found = {
            day: counted[f"registry/zurich_{day.replace('-', '')}_hundehalter.csv"] for day in registry[name]
        }
        assert found == registry[name]
    years = [
        year for one in by_day(real, "pets").values() for year in one.table.column("birth_year").to_pylist()
    ]
    assert years.count(None) == sum(registry["impossible_birth_years"].values())


def test_tracker_frames(
    events: dict[str, list[tuple[datetime, dict[str, Any]]]], reference: dict[str, Any]
) -> None:
    frames = events["telemetry.campusiot"]
    known: set[tuple[str, str, Any]] = set()
    newest: dict[str, datetime] = {}
    found: Counter[str] = Counter()
    for arrival_ts, event in frames:
        check_clock(event["event_ts"], arrival_ts, believed_receipts(utc_now(), NOT_BEFORE))
        key = (event["device_id"], event["event_id"], event["event_ts"].date())
        without_fix = event["gps_lat"] is None
        found["frames"] += 1
        found["repeated"] += key in known
        found["without_fix"] += without_fix
        found["distinct_without_fix"] += without_fix and key not in known
        found["late"] += (arrival_ts - event["event_ts"]).total_seconds() > LATE_AFTER_S
        found["out_of_order"] += event["event_ts"] < newest.get(event["device_id"], datetime.min)
        known.add(key)
        newest[event["device_id"]] = max(event["event_ts"], newest.get(event["device_id"], datetime.min))
    assert found == {name: reference["tracker"][name] for name in found}
    assert len(known) == reference["tracker"]["distinct_frames"]
    # Each id is of one date, so that the duplicates key sees every repeat.
    assert len({key[:2] for key in known}) == len(known)


def test_trackers_with_no_pet(real: RealData, reference: dict[str, Any]) -> None:
    trackers = keys(of(real, "campusiot", "devices"))
    assert sorted(trackers) == reference["tracker"]["devices"]
    assigned = of(real, "movebank", "device_assignments").table.column("device_id").to_pylist()
    assert set(trackers).isdisjoint(assigned)


def test_cats(
    real: RealData, events: dict[str, list[tuple[datetime, dict[str, Any]]]], reference: dict[str, Any]
) -> None:
    fixes = [event for _, event in events["telemetry.movebank"]]
    cats = reference["cats"]
    assert len(fixes) == len({event["event_id"] for event in fixes}) == cats["fixes"]
    assert sum(event["quality_score"] == 0 for event in fixes) == cats["outliers"]
    assert of(real, "movebank", "pets").table.num_rows == cats["animals"]
    worn = {row["device_id"]: row for row in of(real, "movebank", "device_assignments").table.to_pylist()}
    on_a_cat = sum(
        worn[event["device_id"]]["assigned_from"]
        <= event["event_ts"]
        < worn[event["device_id"]]["assigned_to"]
        for event in fixes
    )
    assert on_a_cat == cats["fixes_on_a_cat"] == 18_215


def test_event_days(
    events: dict[str, list[tuple[datetime, dict[str, Any]]]], reference: dict[str, Any]
) -> None:
    days = {event["event_ts"].date().isoformat() for one in events.values() for _, event in one}
    assert (len(days), min(days), max(days)) == (
        reference["event_days"]["both"],
        reference["event_days"]["first"],
        reference["event_days"]["last"],
    )
    assert len(days) == 189


def test_animals_that_return(real: RealData, reference: dict[str, Any]) -> None:
    shelter = reference["shelter"]
    visits = of(real, "longbeach-shelter", "clinic_visits").table.to_pylist()
    by_animal = Counter(row["pet_id"] for row in visits)
    assert len({row["visit_id"] for row in visits}) == len(visits) == shelter["visits"]
    assert by_animal.keys() == set(keys(of(real, "longbeach-shelter", "pets")))
    assert dict(sorted(Counter(by_animal.values()).items())) == shelter["animals_by_visits"]
    days: dict[str, set[datetime]] = {}
    for row in visits:
        if row["status"] != "cancelled":
            days.setdefault(row["pet_id"], set()).add(row["visit_ts"])
    assert sum(len(seen) > 1 for seen in days.values()) == shelter["animals_that_return"]
    assert sum(row["visit_end_ts"] is None for row in visits) == shelter["open_visits"]
    assert sum(row["status"] == "cancelled" for row in visits) == shelter["marked_duplicate"]


def test_extracts_land_once(real: RealData, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def land() -> list[Any]:
        return [land_extract(store, **one.arguments) for one in real.extracts]

    first = land()
    assert [manifest.rows for manifest in first] == [one.table.num_rows for one in real.extracts]
    objects = sorted(info.key for info in store.list(""))
    assert land() == first
    assert sorted(info.key for info in store.list("")) == objects
    assert len({(one.source, one.feed, one.extract_id) for one in real.extracts}) == len(real.extracts)
