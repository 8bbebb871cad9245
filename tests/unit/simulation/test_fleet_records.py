"""Records of the simulated fleet: what the extracts deliver, when, and which histories follow."""

import itertools
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from contracts.columns import RECORD_FEEDS
from contracts.records import validate_records
from lake.extract import land_extract
from lake.store import LocalStore
from simulation import Fleet, FleetConfig, write_truth
from simulation.breeds import BREEDS
from simulation.config import ORDINARY


@cache
def fleet() -> Fleet:
    return Fleet(FleetConfig(**ORDINARY))  # what is out of the ordinary is in test_anomalies.py


@cache
def rows() -> dict[str, list[dict[str, object]]]:
    """All delivered rows per feed with the moment of their extract, in order of delivery."""
    found = defaultdict(list)
    for extract in fleet().record_extracts():
        for row in extract.table.to_pylist():
            found[extract.feed].append(row | {"extracted_at": extract.extracted_at})
    return found


def by_key(feed: str) -> dict[str, list[dict[str, object]]]:
    found = defaultdict(list)
    for row in rows()[feed]:
        found[row["business_key"]].append(row)
    return found


@cache
def truth():
    return fleet().truth()


def test_every_row_keeps_the_contract_and_its_payload_says_the_same():
    for extract in fleet().record_extracts():
        table = extract.table.to_pylist()
        good, problems = validate_records(extract.feed, table)
        assert problems == [] and len(good) == extract.table.num_rows > 0
        for row in table:
            payload = json.loads(row["payload"])
            assert payload[extract.table.schema.names[3]] == row["business_key"]
            for name in ("weight_kg", "status", "district", "owner_id", "firmware_version"):
                if name in payload and payload[name] is not None:
                    assert str(payload[name]).rstrip("0") == str(row[name]).rstrip("0")


def test_extracts_state_everything_once_and_then_only_changes():
    config, extracts = fleet().config, fleet().record_extracts()
    initial = [extract for extract in extracts if extract.complete]
    assert [extract.feed for extract in initial] == list(RECORD_FEEDS)
    assert {extract.extracted_at for extract in initial} == {config.start_ts}
    assert len({(extract.feed, extract.extract_id) for extract in extracts}) == len(extracts)
    assert all(config.fingerprint() in extract.extract_id for extract in extracts)
    for extract in initial:
        keys = extract.table["business_key"].to_pylist()
        assert len(set(keys)) == len(keys)
    assert initial[0].table.num_rows == config.households
    assert [extract.extracted_at for extract in extracts] == sorted(
        extract.extracted_at for extract in extracts
    )
    later = {extract.extracted_at for extract in extracts} - {config.start_ts}
    assert later == {config.start_ts + timedelta(days=day + 1) for day in range(config.days)}


def test_nothing_is_delivered_before_it_happened():
    for feed in rows().values():
        for row in feed:
            assert row["changed_at"] < row["extracted_at"]
    for row in rows()["clinic_visits"]:
        if row["status"] in ("completed", "no_show"):
            assert row["changed_at"] >= (row["visit_end_ts"] or row["visit_ts"])


def test_planned_visits_have_histories_and_unplanned_ones_come_unannounced():
    histories = by_key("clinic_visits").values()
    in_period = [history for history in histories if len(history) > 1]
    paths = Counter(tuple(row["status"] for row in history) for history in in_period)
    assert paths["scheduled", "completed"] > 10 and paths["scheduled", "no_show"] > 0
    for history in histories:
        if history[0]["is_unplanned"]:
            assert [row["status"] for row in history] == ["completed"]
    past = [history[0] for history in histories if history[0]["visit_ts"] < fleet().config.start_ts]
    ages = [(fleet().config.start_ts - row["visit_ts"]).days for row in past]
    assert len(past) > 150 and max(ages) > 330 and min(ages) < 30
    shares = Counter(row["status"] for row in past)
    assert shares["no_show"] / (shares["no_show"] + shares["completed"]) == pytest.approx(0.08, abs=0.06)
    due = [row["next_vaccine_due"] for row in past if row["next_vaccine_due"]]
    assert any(fleet().config.start <= day < fleet().config.end_ts.date() for day in due)


def test_no_shows_are_those_of_the_truth():
    stated = set(truth().tables["no_shows"]["visit_id"].to_pylist())
    start = fleet().config.start_ts
    seen = {
        row["visit_id"]
        for row in rows()["clinic_visits"]
        if row["status"] == "no_show" and row["visit_ts"] >= start
    }
    assert seen == stated and stated


def test_sizes_and_stories_of_the_default_fleet():
    world = truth().world
    assert world["owners"] >= 100 and world["clinics"] == 6 and world["devices"] == 120
    assert 0.35 <= world["pets_with_unplanned_visit"] / world["pets"] <= 0.45
    for story in ("moved_devices", "retired_devices", "moved_owners", "rehomed_pets", "repeated_records"):
        assert world[story], story
    assert len(world["moved_devices"]) >= 3 and world["shared_device"]
    assigned = {row["pet_id"] for row in rows()["device_assignments"]}
    assert world["pets"] - len(assigned) >= 5, "pets without a collar"


def test_owners_are_deleted_and_return():
    owners = by_key("owners")
    ops = {
        key: [row["op"] for row in sorted(h, key=lambda row: row["changed_at"])] for key, h in owners.items()
    }
    [gone], [back] = truth().world["deleted_owners"], truth().world["returned_owners"]
    assert ops[gone][-1] == "delete"
    assert ops[back][-2:] == ["delete", "upsert"]
    districts = [
        key for key, h in owners.items() if len({row["district"] for row in h if row["district"]}) > 1
    ]
    assert districts and set(districts) <= set(truth().world["moved_owners"])


def test_consent_changes_over_time_and_says_when():
    changed = 0
    for history in by_key("owners").values():
        flags = [json.loads(row["consent_flags"]) for row in history if row["consent_flags"]]
        values = [flag["analytics"]["value"] for flag in flags]
        if len(set(values)) > 1:
            changed += 1
            row = next(row for row, value in zip(history, values, strict=False) if value != values[0])
            at = json.loads(row["consent_flags"])["analytics"]["at"]
            assert datetime.fromisoformat(at).replace(tzinfo=None) == row["changed_at"]
    assert changed == len(
        [row for row in truth().tables["opt_outs"].to_pylist() if in_period(row["from_ts"])]
    )
    assert changed >= 3


def in_period(moment: datetime) -> bool:
    return fleet().config.start_ts <= moment < fleet().config.end_ts


def test_a_collar_has_one_pet_at_a_time_and_the_shared_one_alternates():
    worn = defaultdict(list)
    for history in by_key("device_assignments").values():
        last = max(history, key=lambda row: row["changed_at"])
        worn[last["device_id"]].append((last["assigned_from"], last["assigned_to"], last["pet_id"]))
    for spans in worn.values():
        spans.sort()
        for (_, end, _), (start, _, _) in itertools.pairwise(spans):
            assert end is not None and end <= start
    pets = [pet for _, _, pet in worn[truth().world["shared_device"]]]
    assert len(pets) >= 5 and len(set(pets)) == 2
    assert all(left != right for left, right in itertools.pairwise(pets))
    assert {device for device, spans in worn.items() if len({pet for *_, pet in spans}) > 1} == {
        truth().world["shared_device"],
        *truth().world["moved_devices"],
    }


def test_histories_equal_a_recount_of_the_delivered_rows():
    stated = {
        (row["feed"], row["business_key"]): row["versions"] for row in truth().tables["histories"].to_pylist()
    }
    counted = {}
    for feed, delivered in rows().items():
        typed = [column.name for column in RECORD_FEEDS[feed]]
        for key, history in _grouped(delivered).items():
            states = [
                (row["op"], *(row[name] for name in typed))
                for row in sorted(history, key=lambda row: (row["changed_at"], row["extracted_at"]))
            ]
            counted[feed, key] = 1 + sum(a != b for a, b in itertools.pairwise(states))
    assert stated == counted
    assert sum(versions > 1 for (feed, _), versions in stated.items() if feed == "owners") > 10


def _grouped(delivered):
    found = defaultdict(list)
    for row in delivered:
        found[row["business_key"]].append(row)
    return found


def test_some_records_come_late_and_some_twice():
    late = truth().tables["late_records"].to_pylist()
    assert {"owners", "clinic_visits", "device_assignments"} <= {row["feed"] for row in late}
    repeated = Counter(
        (feed, row["business_key"], row["changed_at"], row["payload"])
        for feed in rows()
        for row in rows()[feed]
    )
    twice = {f"{feed}/{key}" for (feed, key, _, _), count in repeated.items() if count > 1}
    assert twice == set(truth().world["repeated_records"])


def test_documents_are_of_completed_visits_and_a_planted_share_is_doubtful():
    visits = {key: history[-1] for key, history in by_key("clinic_visits").items()}
    planted = {row["document_id"]: row for row in truth().tables["documents"].to_pylist()}
    documents = by_key("visit_documents")
    assert set(documents) == set(planted)
    completed = [visit for visit in visits.values() if visit["status"] == "completed"]
    scanned = {history[0]["visit_id"] for history in documents.values()}
    assert len(scanned) / len(completed) == pytest.approx(0.5, abs=0.08)
    doubtful = [row for row in planted.values() if row["is_doubtful"]]
    assert len(doubtful) / len(planted) == pytest.approx(0.15, abs=0.06)
    assert any(row["ocr_confidence"] is None for row in doubtful)
    for key, history in documents.items():
        first, last = history[0], history[-1]
        visit = visits[first["visit_id"]]
        assert (visit["status"], visit["pet_id"]) == ("completed", first["pet_id"])
        assert first["changed_at"] > visit["visit_end_ts"]
        confidence = first["ocr_confidence"]
        is_doubtful = confidence is None or confidence < Decimal("0.800")
        assert planted[key]["is_doubtful"] == is_doubtful
        assert planted[key]["review_status"] == last["review_status"]
        assert planted[key]["decided_at"] == last["validated_at"]
        assert last["ocr_confidence"] == confidence
        if not is_doubtful:
            assert [row["review_status"] for row in history] == ["auto_accepted"]
    waiting = [row for row in doubtful if row["review_status"] == "pending"]
    assert 0 < len(waiting) == truth().world["documents_to_review"] < len(doubtful)
    assert {row["review_status"] for row in doubtful} == {"pending", "validated", "rejected"}


def test_a_validated_document_says_what_the_records_say():
    names = {row["pet_id"]: row["name"] for row in rows()["pets"] if row["op"] == "upsert"}
    corrected = 0
    for history in by_key("visit_documents").values():
        last = history[-1]
        if last["review_status"] in ("auto_accepted", "validated"):
            assert json.loads(last["ocr_fields"])["pet_name"] == names[last["pet_id"]]
        if len(history) == 2 and last["review_status"] == "validated":
            corrected += history[0]["ocr_fields"] != last["ocr_fields"]
    assert corrected > 0


def consent_of(owner_id, moment):
    """What the owner's records say of a moment; nothing while deleted."""
    held = {}
    for row in sorted(by_key("owners")[owner_id], key=lambda row: row["changed_at"]):
        if row["changed_at"] <= moment:
            held = json.loads(row["consent_flags"]) if row["op"] == "upsert" else {}
    return {name: flag["value"] for name, flag in held.items()}


def test_nobody_is_contacted_on_a_channel_that_was_refused():
    refused = Counter()
    for row in rows()["engagement"]:
        allowed = consent_of(row["owner_id"], row["occurred_at"])
        assert allowed or row["action"] in ("opened", "clicked"), "a contact with who is no client"
        if row["action"] == "sent":
            assert allowed[row["channel"]], row
        if row["action"] == "session":
            assert allowed["analytics"]
        refused.update(name for name, value in allowed.items() if not value)
    assert min(refused[name] for name in ("push", "sms", "email", "analytics")) > 5, (
        "who refuses is not contacted at all"
    )


def test_contacts_are_some_per_household_and_week_and_those_of_the_truth():
    engagement = rows()["engagement"]
    weeks = (fleet().config.days + 28) / 7
    assert 1.5 < len(engagement) / fleet().config.households / weeks < 5
    assert {row["action"] for row in engagement} == {
        "session",
        "sent",
        "opened",
        "clicked",
        "called",
        "booked",
    }
    counted = Counter()
    for row in engagement:
        local = row["occurred_at"].replace(tzinfo=UTC).astimezone(ZoneInfo("Europe/Zurich"))
        counted[row["owner_id"], local.date(), row["channel"], row["action"]] += 1
    assert counted == {
        (row["owner_id"], row["event_date"], row["channel"], row["action"]): row["contact_count"]
        for row in truth().tables["engagement"].to_pylist()
    }
    assert {
        row["business_key"]
        for row in truth().tables["late_records"].to_pylist()
        if row["feed"] == "engagement"
    }


def test_bookings_and_reminders_are_of_the_owners_own_appointments():
    pets = {row["pet_id"]: row["owner_id"] for row in rows()["pets"] if row["op"] == "upsert"}
    rehomed = set(truth().world["rehomed_pets"])
    appointments = by_key("appointments")
    booked = [row for row in rows()["engagement"] if row["action"] == "booked"]
    reminded = [row for row in rows()["engagement"] if row["action"] == "sent" and row["appointment_id"]]
    assert len(booked) > 10
    assert len(reminded) > 10
    for row in [*booked, *reminded]:
        [appointment, *_] = appointments[row["appointment_id"]]
        if appointment["pet_id"] not in rehomed:
            assert pets[appointment["pet_id"]] == row["owner_id"]
        if row["action"] == "sent":
            assert row["occurred_at"] == appointment["scheduled_ts"] - timedelta(days=1)


def test_pets_are_of_their_breed():
    breeds = {breed.breed: breed for breed in BREEDS}
    assert len(breeds) == 30
    adults = 0
    for row in rows()["pets"]:
        if row["op"] == "delete" or (fleet().config.start - row["dob"]).days < 400:
            continue
        breed = breeds[row["breed"]]
        adults += 1
        assert breed.min_weight_kg * 0.93 <= float(row["weight_kg"]) <= breed.max_weight_kg * 1.07
        assert row["species"] == breed.species
        assert (fleet().config.start - row["dob"]).days <= breed.max_life_expectancy_years * 366
    assert adults > 80


def test_contacts_are_fictional():
    for row in rows()["owners"]:
        if row["op"] == "upsert":
            assert row["contact_email"].rpartition("@")[2] in {"example.com", "example.org", "example.net"}
            assert "-555-01" in row["contact_phone"]


def test_illnesses_show_before_the_visit_and_not_in_healthy_pets():
    """Means over the day before the visit against the pet's healthy hours, from the rendered measures."""
    timeline, effects = fleet()._timeline, fleet()._timeline.effects
    start = fleet().config.start_ts
    ill = [i for i in fleet().world.illnesses if i.visit_id and in_period(i.until - timedelta(days=1))]
    assert len(ill) > 30
    hours = np.arange(fleet().config.days * 24)
    shift = {"activity": [], "licking": [], "pulse": [], "temp_c": []}
    for illness in ill:
        at = (illness.until - start) // timedelta(hours=1)
        before = (hours >= at - 24) & (hours < at)
        healthy = (hours < at - 100) | (hours > at + 30)
        assert timedelta(days=1) <= illness.until - illness.onset <= timedelta(days=4)
        if healthy.any():
            for name, found in shift.items():
                values = getattr(effects, name)[illness.pet]
                found.append(float(values[before].mean() - values[healthy].mean()))
    means = {name: np.mean(found) for name, found in shift.items()}
    assert -0.6 < means["activity"] < -0.25
    assert 0.6 < means["licking"] < 2.0
    assert 0.05 < means["pulse"] < 0.25
    assert 0.3 < means["temp_c"] < 1.0
    well = set(range(len(fleet().world.pets))) - {i.pet for i in fleet().world.illnesses}
    assert abs(float(timeline.effects.pulse[sorted(well)].mean()) - 1) < 0.01
    assert float(effects.activity[sorted(well)].min()) < 0.6, "lazy days confound"


def test_rendered_measures_follow_the_effects():
    """Temperatures and licks in the messages rise in the last day before an unplanned visit."""
    config = FleetConfig(collars=30, households=30, days=6, illness=0.6, analytics_opt_out=0.0)
    fleet = Fleet(config)
    per_hour: dict[str, np.ndarray] = {
        name: np.zeros((len(fleet.world.pets), config.days * 24)) for name in "ntsl"
    }
    for day in range(config.days):
        for plan in fleet._planner.wave(day, 50_000):
            measures = fleet._renderer.measures(plan)
            pet = fleet._timeline.segments.pet[fleet._timeline.segments.find(plan.device, plan.true_ms)]
            worn = pet >= 0
            hour = (plan.true_ms // 3_600_000) - int(
                (config.start_ts - datetime(1970, 1, 1)).total_seconds()
            ) // 3600
            cell = (pet[worn], hour[worn])
            np.add.at(per_hour["n"], cell, 1)
            np.add.at(per_hour["t"], cell, measures.body_temp[worn] / 100)
            np.add.at(per_hour["s"], cell, measures.step_count[worn])
            np.add.at(per_hour["l"], cell, measures.lick_count[worn])
    temps, licks, steps = [], [], []
    for illness in fleet.world.illnesses:
        at = int((illness.until - config.start_ts) / timedelta(hours=1))
        if illness.visit_id is None or not at >= 24:
            continue
        sick = slice(at - 24, at)
        well = np.r_[0 : max(0, at - 100), min(config.days * 24, at + 30) : config.days * 24]
        cells = {name: values[illness.pet] for name, values in per_hour.items()}
        if cells["n"][sick].sum() > 1000 and cells["n"][well].sum() > 1000:
            ratio = {
                name: [cells[name][part].sum() / cells["n"][part].sum() for part in (sick, well)]
                for name in "tsl"
            }
            temps.append(ratio["t"][0] - ratio["t"][1])
            licks.append(ratio["l"][0] / ratio["l"][1])
            steps.append(ratio["s"][0] / ratio["s"][1])
    assert len(temps) >= 5
    assert np.mean(temps) > 0.25 and np.mean(licks) > 1.4 and np.mean(steps) < 0.9


def test_truth_is_written_whole(tmp_path):
    fleet = Fleet(FleetConfig(collars=4, households=3, clinics=2, days=2))
    truth = fleet.truth()
    write_truth(truth, tmp_path / "truth")
    body = json.loads((tmp_path / "truth" / "truth.json").read_text())
    assert body["total"]["messages"] == sum(wave["messages"] for wave in body["waves"]) > 0
    assert body["fingerprint"] == fleet.config.fingerprint()
    for name, table in truth.tables.items():
        assert pq.read_table(tmp_path / "truth" / f"{name}.parquet").equals(table)


@pytest.mark.parametrize(
    ("collars", "households", "clinics", "days"), [(1, 1, 1, 1), (2, 40, 2, 2), (25, 5, 9, 3)]
)
def test_small_and_odd_fleets_work(collars, households, clinics, days):
    fleet = Fleet(FleetConfig(collars=collars, households=households, clinics=clinics, days=days))
    messages = sum(len(batch) for day in range(days) for batch in fleet.telemetry_wave(day))
    assert messages == fleet.truth().total.messages > 0
    assert {extract.feed for extract in fleet.record_extracts()} >= {"owners", "pets", "devices"}


def test_fingerprints_follow_the_configuration():
    assert FleetConfig().fingerprint() == FleetConfig().fingerprint()
    assert FleetConfig(seed=1).fingerprint() != FleetConfig(seed=2).fingerprint()
    assert fleet().wave_id(3) == f"{fleet().config.fingerprint()}-wave-003"


@pytest.mark.parametrize("wrong", [{"collars": 0}, {"late": 1.5}, {"days": 0}, {"unknown": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FleetConfig(**wrong)


def test_extracts_land_and_landing_again_is_a_no_op(tmp_path):
    config = FleetConfig(collars=4, households=3, clinics=2, days=2)
    store = LocalStore(tmp_path)

    def land() -> list[int]:
        return [land_extract(store, **extract.arguments).rows for extract in Fleet(config).record_extracts()]

    first = land()
    objects = sorted(info.key for info in store.list(""))
    assert land() == first and sum(first) > 0
    assert sorted(info.key for info in store.list("")) == objects
