"""What training may learn from: consent, deletions and visits by the rules that everything else goes by."""

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, Raw, Row, extract, merged, record

from contracts.consent import FLAGS, AnalyticsDefault, OwnerRecord, allows, statements
from ml.datasets import TrainingSet, read_training_set
from ml.warehouse import DuckDBWarehouse

BEFORE = FIRST_DAY - 30 * DAY
AS_OF = FIRST_DAY + 20 * DAY
CHANGE_ORDER = ("changed_at", "arrival_ts", "stream_id", "kafka_partition", "kafka_offset")
MODELS = ("ml_owner_records", "ml_pet_records", "ml_visit_records", "anl_reachable_owners")


def owner(entity: str, day: float, op: str = "upsert", known: float | None = None, **flags: bool) -> Row:
    """A record of an owner; without flags it says nothing of consent."""
    said = {flag: {"at": "2026-05-01T08:00:00Z", "value": value} for flag, value in flags.items()}
    return record(
        *("owners", entity, FIRST_DAY + timedelta(days=day)),
        arrival_ts=FIRST_DAY + timedelta(days=day if known is None else known),
        op=op,
        consent_flags=json.dumps(said) if said else None,
    )


HOUSEHOLDS = {
    "shares": [owner("shares", -30, share_research=True)],
    "still shares": [owner("still shares", -30, share_research=True), owner("still shares", 1, push=True)],
    "refuses": [owner("refuses", -30, share_research=False)],
    "still refuses": [
        owner("still refuses", -30, share_research=False),
        owner("still refuses", 1, push=True),
    ],
    "silent": [owner("silent", -30, push=True)],
    "says nothing": [owner("says nothing", -30)],
    "deleted": [owner("deleted", -30, share_research=True), owner("deleted", 1, op="delete")],
    "returned": [
        owner("returned", -30, share_research=True),
        owner("returned", 1, op="delete"),
        owner("returned", 2),
    ],
    "refuses late": [
        owner("refuses late", -30, share_research=True),
        owner("refuses late", 1, known=30, share_research=False),
    ],
    "clock ahead": [
        owner("clock ahead", -30, share_research=True),
        owner("clock ahead", 400, known=3, share_research=False),
    ],
}


def visit(entity: str, pet_id: str, day: float, **values: Any) -> Row:
    moment = FIRST_DAY + timedelta(days=day)
    known = {"pet_id": pet_id, "visit_ts": moment, "is_unplanned": True, **values}
    return record("clinic_visits", entity, moment, **known)


def visits(*rows: Row, number: int, day: int) -> Raw:
    """A complete extract of visits."""
    return extract("clinic_visits", number, FIRST_DAY + day * DAY, list(rows), source="clinics")


def pets_and_owners() -> Raw:
    """Every household with one pet, and two households that only complete extracts know: in the second, one of
    them and the pet of the other are missing."""
    both, one = ["listed", "left"], ["listed"]
    flags = json.dumps({"share_research": {"value": True}})

    def owners(names: list[str], number: int, day: int) -> Raw:
        rows = [record("owners", name, BEFORE, consent_flags=flags) for name in names]
        return extract("owners", number, FIRST_DAY + day * DAY, rows)

    def pets(names: list[str], number: int, day: int) -> Raw:
        rows = [record("pets", f"pet of {name}", BEFORE, owner_id=name.split()[0]) for name in names]
        return extract("pets", number, FIRST_DAY + day * DAY, rows)

    return merged(
        [
            {"owners": [row for rows in HOUSEHOLDS.values() for row in rows]},
            {"pets": [record("pets", f"pet of {name}", BEFORE, owner_id=name) for name in HOUSEHOLDS]},
            *(owners(both, 1, 0), owners(one, 2, 4)),
            *(pets(["listed", "left", "listed gone"], 1, 0), pets(["listed", "left"], 2, 4)),
        ]
    )


def random_owners(seed: int, count: int) -> list[Row]:
    """Owners whose records come in any order, say some flags and not others, go and return."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        for _ in range(draw.randrange(1, 7)):
            day = draw.choice([0, 1, 2, 3, 4, 5, 5.25])
            flags = {flag: draw.random() < 0.5 for flag in FLAGS if draw.random() < 0.4}
            known = day + draw.choice([-0.5, 0, 0, 0, 1, 3])
            row = owner(f"r{number:02}", day, draw.choice(["upsert"] * 4 + ["delete"]), known, **flags)
            rows.append(row)
        rows.append(owner(f"r{number:02}", draw.choice([40, 400]), "upsert", draw.randrange(6), push=True))
    for offset, row in enumerate(rows):
        row.update(stream_id="cluster.random.1", kafka_offset=offset)
    return rows


RANDOM = random_owners(11, 60)


@pytest.fixture(scope="module")
def warehouse(make_warehouse: Any) -> Any:
    kept = [visit("v1", "pet of shares", 3), visit("v2", "pet of still shares", 3, status="completed")]
    raw = merged(
        [
            pets_and_owners(),
            {"owners": RANDOM},
            visits(*kept, visit("mistake", "pet of listed", 3), number=1, day=10),
            visits(*kept, number=2, day=12),
        ]
    )
    for feed in ("owners", "pets"):
        for offset, row in enumerate(raw[feed]):
            if row["stream_id"] == f"cluster.{feed}.1":
                row["kafka_offset"] = offset
    made = make_warehouse(raw)
    made.build("--select", *(f"+{model}" for model in MODELS), without=("unit_test", "test"))
    checked = made.invoke("test", "--select", *MODELS, "--indirect-selection", "cautious")
    assert checked.success, [item.message for item in checked.result.results]
    with made.connect() as con:
        con.execute("create schema if not exists ml")
        con.execute(
            "create table ml.computed_features as select 'pet of ' || name as pet_id, 'steps_24h' as feature_name,"
            " date '2026-06-01' + day::integer + interval 0 hour as end_ts, 1.0::double as value,"
            " 'v1' as feature_version from unnest($names) as names (name), unnest([2, 5]) as days (day)",
            {"names": [*HOUSEHOLDS, "listed", "left", "listed gone"]},
        )
    return made


@pytest.fixture(scope="module")
def trained(warehouse: Any) -> Iterator[Any]:
    with warehouse.connect() as con:

        def train(as_of: datetime) -> TrainingSet:
            return read_training_set(DuckDBWarehouse(con), as_of=as_of, labels_until=as_of, horizon_days=7)

        yield train


def households(dataset: TrainingSet) -> set[str]:
    return {str(pet_id).removeprefix("pet of ") for pet_id in dataset.features.pet_ids}


def test_training_learns_from_who_said_yes_last_and_is_still_there(trained: Any) -> None:
    assert households(trained(AS_OF)) == {"shares", "still shares", "returned", "refuses late", "listed"}
    assert "refuses late" not in households(trained(FIRST_DAY + 31 * DAY))


def test_absence_from_a_complete_extract_reaches_training_once_it_is_known(trained: Any) -> None:
    """Owner, pet and visit: each only ever stated by extracts, missing in the second."""
    labels = dict(
        zip(*(lambda d: (d.features.pet_ids, d.labels))(trained(FIRST_DAY + 11 * DAY)), strict=True)
    )
    assert labels["pet of listed"] == 1
    later = trained(AS_OF)
    mistaken = later.features.pet_ids == "pet of listed"
    assert later.labels[mistaken].tolist() == [0, 0]
    assert not {"left", "listed gone"} & households(later)


def test_a_visit_without_status_is_one_that_took_place(trained: Any) -> None:
    dataset = trained(AS_OF)
    for pet in ("pet of shares", "pet of still shares"):
        rows = dataset.features.pet_ids == pet
        assert dataset.labels[rows].tolist() == [1, 0]
        assert dataset.days_since_visit[rows].tolist()[1] == 2.0


def known_by(moment: datetime) -> dict[str, list[OwnerRecord]]:
    """Records of the random owners received by then, in the order of changes."""
    rows = [row for row in RANDOM if row["arrival_ts"] <= moment]
    ordered = sorted(rows, key=lambda row: (row["owner_id"], *(row[name] for name in CHANGE_ORDER)))
    return {
        owner_id: [OwnerRecord(*(row[name] for name in OwnerRecord._fields)) for row in theirs]
        for owner_id, theirs in groupby(ordered, key=lambda row: row["owner_id"])
    }


def is_there(records: list[OwnerRecord], moment: datetime) -> bool:
    trusted = [one for one in records if one.changed_at <= min(one.arrival_ts + DAY, moment)]
    return bool(trusted) and trusted[-1].op != "delete"


def said_yes(flag: str, records: list[OwnerRecord], moment: datetime) -> bool:
    held = [one.is_allowed for one in statements(flag, records) if one.since <= moment]
    return allows(flag, held[-1] if held else None, AnalyticsDefault.REFUSE)


@pytest.mark.parametrize("hours", [-20, 0, 11, 12, 24, 36, 60, 72, 100, 126, 144, 240])
def test_what_was_known_when_is_what_the_rule_of_the_contracts_says(warehouse: Any, hours: int) -> None:
    moment = FIRST_DAY + timedelta(hours=hours)
    found = warehouse.rows(
        f"select owner_id from ml.owner_records where owner_id like 'r__' and known_from <= '{moment}'"
        f" and (known_to is null or known_to > '{moment}') order by 1"
    )
    expected = [
        owner_id
        for owner_id, records in known_by(moment).items()
        if is_there(records, moment) and said_yes("share_research", records, moment)
    ]
    assert [row["owner_id"] for row in found] == expected


def test_who_may_be_reached_is_what_the_rule_of_the_contracts_says(warehouse: Any) -> None:
    now = FIRST_DAY + 1000 * DAY
    listed = warehouse.rows("select owner_id, channel from anl.reachable_owners where owner_id like 'r__'")
    assert {(row["owner_id"], row["channel"]) for row in listed} == {
        (owner_id, channel)
        for owner_id, records in known_by(now).items()
        for channel in ("push", "sms", "email")
        if is_there(records, now) and said_yes(channel, records, now)
    }
