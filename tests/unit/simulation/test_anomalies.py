"""What is out of the ordinary in a fleet, recounted from its messages and extracts, against its truth."""

import json
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from contracts.records import validate_records
from simulation import Fleet, FleetConfig
from simulation.config import ORDINARY

FAULTS = ("duplicates", "conflicts", "late", "out_of_order", "malformed", "clock_breaks_per_device_day")
CONFIG = FleetConfig(
    seed=3,
    collars=6,
    households=6,
    clinics=2,
    days=4,
    partial_collars=0.2,
    gaps_per_device_day=0.5,
).model_copy(update=dict.fromkeys(FAULTS, 0.0))


@cache
def fleet() -> Fleet:
    return Fleet(CONFIG)


@cache
def truth() -> Any:
    return fleet().truth()


def planted(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = truth().tables[name].to_pylist()
    assert rows, f"the smallest fleet has some {name}"
    return rows


@cache
def events() -> dict[str, list[dict[str, Any]]]:
    """Messages as sent, by collar."""
    found = defaultdict(list)
    for day in range(CONFIG.days):
        for batch in fleet().telemetry_wave(day):
            for value in batch.values:
                event = json.loads(value)
                event["at"] = datetime.fromisoformat(event["event_ts"]).replace(tzinfo=None)
                found[event["device_id"]].append(event)
    return found


@cache
def records(feed: str) -> dict[str, list[dict[str, Any]]]:
    """Records of a feed by business key, in the order of their extracts and rows."""
    found = defaultdict(list)
    for extract in fleet().record_extracts():
        if extract.feed == feed:
            good, problems = validate_records(feed, extract.table.to_pylist())
            assert problems == []
            for row in good:
                extra = {"extracted_at": extract.extracted_at, "source": extract.source}
                found[row["business_key"]].append(dict(row) | extra)
    return found


def messages_of(config: FleetConfig, devices: set[bytes]) -> list[tuple[bytes, int]]:
    whole = Fleet(config)
    return [
        (value, arrival)
        for day in range(config.days)
        for batch in whole.telemetry_wave(day)
        for key, value, arrival in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True)
        if key in devices
    ]


def test_the_ordinary_fleet_is_the_same_with_and_without() -> None:
    config = CONFIG.model_copy(update={"days": 2})
    ordinary = Fleet(config.model_copy(update=ORDINARY))
    devices = {device.encode() for device in ordinary.world.device_ids}
    assert len(devices) == CONFIG.collars
    assert messages_of(config, devices) == messages_of(ordinary.config, devices)
    whole = Fleet(config).world
    assert whole.pets[: len(ordinary.world.pets)] == ordinary.world.pets
    assert whole.mutations[: len(ordinary.world.mutations)] == ordinary.world.mutations


def test_two_pets_claim_a_collar() -> None:
    [span] = planted("ambiguous_spans")
    claims = [rows[-1] for rows in records("device_assignments").values()]
    first, second = sorted(
        (claim for claim in claims if claim["device_id"] == span["device_id"]),
        key=lambda claim: claim["assigned_from"],
    )
    assert (second["assigned_from"], first["assigned_to"]) == (span["from_ts"], span["to_ts"])
    assert first["pet_id"] != second["pet_id"]
    within = [e for e in events()[span["device_id"]] if span["from_ts"] <= e["at"] < span["to_ts"]]
    assert len(within) == span["events"] == truth().total.ambiguous > 100


def test_a_collar_of_irregular_cadence_sends_now_and_then_and_promises_nothing() -> None:
    days = planted("irregular_days")
    [device] = {row["device_id"] for row in days}
    assert {row["expected_events_per_day"] for row in records("devices")[device]} == {None}
    assert {(row["event_date"], row["events"]) for row in days} == set(
        Counter(event["at"].date() for event in events()[device]).items()
    )
    gaps = {later["at"] - earlier["at"] for earlier, later in pairwise(events()[device])}
    assert max(gaps) > timedelta(minutes=20) > timedelta(minutes=5) > min(gaps)
    lost = [row["missing_events"] is None for row in planted("gaps") if row["device_id"] == device]
    assert lost
    assert all(lost)


def test_collars_without_a_sensor_never_measure_it() -> None:
    lacks = defaultdict(set)
    for row in planted("missing_sensors"):
        lacks[row["device_id"]].add(row["sensor"])
        assert len(events()[row["device_id"]]) == row["events"]
    assert len(lacks) == 2
    measured = {device: set().union(*sent) for device, sent in events().items()}
    everything = set().union(*measured.values())
    for device, sensors in lacks.items():
        assert everything - measured[device] == sensors


def test_owners_leave_flags_out_and_what_was_said_last_is_planted() -> None:
    said: dict[tuple[str, str], bool | None] = {}
    for row in planted("silent_consents"):
        assert said.setdefault((row["owner_id"], row["flag"]), row["last_said"]) is row["last_said"]
    owners = {owner for owner, _ in said}
    assert len(owners) == 3
    for owner in owners:
        stated: dict[str, bool] = {}
        for row in records("owners")[owner]:
            flags = json.loads(row["consent_flags"] or "{}")
            assert len(flags) < 5 or len(records("owners")[owner]) > 1
            stated |= {flag: statement["value"] for flag, statement in flags.items()}
        assert {flag: said[owner, flag] for one, flag in said if one == owner} == {
            flag: stated.get(flag) for flag in ("analytics", "email", "push", "share_research", "sms")
        }
    values = Counter(said.values())
    assert min(values[True], values[False], values[None]) > 0
    # One refuses, and later records do not say so: all that the collar sends is dropped.
    dropped = {row["device_id"]: row["events"] for row in truth().tables["opt_out_drops"].to_pylist()}
    assert dropped[fleet().world.device_ids[-1]] == len(events()[fleet().world.device_ids[-1]]) > 1000


def test_a_register_lists_pets_always_not_once_or_no_more() -> None:
    extracts = [extract for extract in fleet().record_extracts() if extract.source == "pet-register"]
    assert all(extract.complete for extract in extracts)
    assert len(extracts) == CONFIG.days + 1
    expected = []
    for pet_id, rows in records("pets").items():
        if rows[0]["source"] != "pet-register":
            continue
        assert len({(row["changed_at"], row["payload"]) for row in rows}) == 1
        listed_at = {row["extracted_at"] for row in rows}
        versions = [(rows[0]["changed_at"], False)]
        for extract in extracts:
            is_absent = extract.extracted_at not in listed_at
            if is_absent != versions[-1][1]:
                versions.append((extract.extracted_at, is_absent))
        ends = [begin for begin, _ in versions[1:]] + [None]
        expected += [(pet_id, begin, end, gone) for (begin, gone), end in zip(versions, ends, strict=True)]
    found = [tuple(row.values()) for row in planted("listed_versions")]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert sorted(Counter(pet_id for pet_id, *_ in found).values()) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["repeated", "duplicate_key", "contradicted", "clock_ahead"])
def test_records_are_odd_in_the_way_planted(kind: str) -> None:
    [row] = [row for row in planted("set_aside_records") if row["reason"] == kind]
    assert row["records"] == 1
    _, *later = records(row["feed"])[row["business_key"]]
    odd, right = later
    same = {name for name in odd if odd[name] == right[name]}
    if kind == "repeated":
        assert same == set(odd)
    else:
        assert (odd["color"], right["color"]) == ("misread", "piebald") or kind == "clock_ahead"
        assert ("changed_at" in same) == (kind != "clock_ahead")
        assert ("extracted_at" in same) == (kind != "contradicted")
    if kind == "clock_ahead":
        assert max(one["changed_at"] - one["extracted_at"] for one in later) > timedelta(days=2)


def test_an_earlier_release_left_features() -> None:
    days = planted("superseded_features")
    assert len(days) == CONFIG.days
    assert {row["pet_id"] for row in days} <= set(records("pets"))
    assert fleet().superseded_features().equals(truth().tables["superseded_features"])
