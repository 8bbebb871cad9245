"""Record contracts: what is refused, that nothing is coerced or lost, and the landed table's shape."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.columns import RECORD_FEEDS, record_schema
from contracts.records import RECORD_KEYS, RECORD_MODELS, canonical_json, records_table, validate_records

AT = datetime(2026, 6, 1, 8, 0, 0, 1)
ENVELOPE_FIELDS = {"business_key", "op", "changed_at", "arrival_ts", "payload"}

EXAMPLES: dict[str, dict[str, Any]] = {
    "owners": {"owner_id": "o1", "consent_flags": '{"email":{"at":"2026-06-01T08:00:00Z","value":true}}'},
    "pets": {"pet_id": "p1", "dob": date(2020, 2, 29), "weight_kg": Decimal("12.345"), "sex": "female"},
    "devices": {"device_id": "d1", "status": "active", "expected_events_per_day": 1440},
    "clinics": {"clinic_id": "c1", "timezone": "Europe/Zurich"},
    "device_assignments": {"assignment_id": "a1", "device_id": "d1", "pet_id": "p1", "assigned_from": AT},
    "clinic_visits": {"visit_id": "v1", "pet_id": "p1", "visit_ts": AT, "diagnosis_codes": '["K52","L20"]'},
    "appointments": {"appointment_id": "m1", "pet_id": "p1", "scheduled_ts": AT, "status": "no_show"},
    "breeds": {
        "breed_id": "b1",
        "breed": "Beagle",
        "min_weight_kg": Decimal("9"),
        "max_weight_kg": Decimal("11"),
    },
    "visit_documents": {
        "document_id": "d1",
        "visit_id": "v1",
        "pet_id": "p1",
        "document_uri": "s3://documents/d1",
        "media_type": "application/pdf",
        "page_count": 2,
        "sha256": "0f" * 32,
        "ocr_engine": "engine-1",
        "ocr_fields": '{"pet_name":"Rex"}',
        "ocr_confidence": Decimal("0.912"),
        "review_status": "auto_accepted",
    },
    "engagement": {
        "engagement_id": "e1",
        "owner_id": "o1",
        "channel": "app",
        "action": "session",
        "occurred_at": AT,
        "duration_s": 75,
    },
}


def record(feed: str, **changes: Any) -> dict[str, Any]:
    row = {"op": "upsert", "changed_at": AT, "payload": "{}", **EXAMPLES[feed]}
    row["business_key"] = row[RECORD_KEYS[feed]]
    return row | changes


@pytest.mark.parametrize("feed", RECORD_FEEDS)
def test_models_have_the_columns_of_the_feed(feed: str) -> None:
    columns = {field.name for field in RECORD_FEEDS[feed]}
    assert set(RECORD_MODELS[feed].model_fields) == columns | ENVELOPE_FIELDS
    required = {name for name, field in RECORD_MODELS[feed].model_fields.items() if field.is_required()}
    not_null = {field.name for field in RECORD_FEEDS[feed] if not field.nullable}
    assert required == not_null | ENVELOPE_FIELDS - {"arrival_ts"}


@pytest.mark.parametrize("feed", RECORD_FEEDS)
def test_a_good_row_comes_back_as_it_went_in_and_lands_as_the_schema_says(feed: str) -> None:
    row = record(feed)
    assert validate_records(feed, [row]) == ([row], [])
    table = records_table(feed, [row, row | {"arrival_ts": AT}])
    landed = record_schema(feed)
    added = {"stream_id", "kafka_partition", "kafka_offset", "ingested_at", "source_system", "source_file"}
    added.add("extracted_at")
    assert table.schema == pa.schema([field for field in landed if field.name not in added])
    assert table.column("arrival_ts").to_pylist() == [None, AT]
    assert {name: value for name, value in table.to_pylist()[0].items() if value is not None} == row


@pytest.mark.parametrize(
    ("feed", "change", "reason", "named"),
    [
        ("owners", {"sex": "w"}, "invalid_value", "sex"),
        ("owners", {"district": ""}, "invalid_value", "district"),
        ("owners", {"consent_flags": '{"email": true}'}, "invalid_value", "consent_flags"),
        ("owners", {"op": "insert"}, "invalid_value", "op"),
        ("owners", {"changed_at": AT.replace(tzinfo=UTC)}, "invalid_value", "changed_at"),
        ("owners", {"changed_at": "2026-06-01T08:00:00"}, "invalid_value", "changed_at"),
        ("owners", {"payload": "[]"}, "invalid_value", "payload"),
        ("owners", {"payload": '{"a":NaN}'}, "invalid_value", "payload"),
        ("owners", {"nickname": "x"}, "unknown_column", "nickname"),
        ("owners", {"business_key": "another"}, "invalid_value", "business_key"),
        ("pets", {"weight_kg": 12.3}, "invalid_value", "weight_kg"),
        ("pets", {"weight_kg": Decimal("1.2345")}, "invalid_value", "weight_kg"),
        ("pets", {"weight_kg": Decimal("NaN")}, "invalid_value", "weight_kg"),
        ("pets", {"birth_year": 5012}, "invalid_value", "birth_year"),
        ("pets", {"birth_year": True}, "invalid_value", "birth_year"),
        ("pets", {"neutered": 1}, "invalid_value", "neutered"),
        ("devices", {"expected_events_per_day": 0}, "invalid_value", "expected_events_per_day"),
        ("device_assignments", {"assigned_to": AT}, "invalid_value", "assigned_to"),
        ("clinic_visits", {"visit_end_ts": datetime(2026, 5, 31)}, "invalid_value", "visit_end_ts"),
        ("clinic_visits", {"diagnosis_codes": '["K52", "L20"]'}, "invalid_value", "diagnosis_codes"),
        ("clinic_visits", {"diagnosis_codes": "[1]"}, "invalid_value", "diagnosis_codes"),
        ("breeds", {"min_weight_kg": Decimal("12")}, "invalid_value", "min_weight_kg"),
        ("visit_documents", {"ocr_confidence": Decimal("1.001")}, "invalid_value", "ocr_confidence"),
        ("visit_documents", {"ocr_confidence": Decimal("0.9121")}, "invalid_value", "ocr_confidence"),
        ("visit_documents", {"ocr_confidence": 0.912}, "invalid_value", "ocr_confidence"),
        ("visit_documents", {"ocr_fields": '["Rex"]'}, "invalid_value", "ocr_fields"),
        ("visit_documents", {"ocr_fields": '{"pet_name": "Rex"}'}, "invalid_value", "ocr_fields"),
        ("visit_documents", {"sha256": "0F" * 32}, "invalid_value", "sha256"),
        ("visit_documents", {"media_type": "pdf"}, "invalid_value", "media_type"),
        ("visit_documents", {"page_count": 0}, "invalid_value", "page_count"),
        ("visit_documents", {"review_status": "done"}, "invalid_value", "review_status"),
        ("visit_documents", {"ocr_engine": None}, "invalid_value", "without ocr_engine"),
        ("visit_documents", {"ocr_confidence": None}, "invalid_value", "auto_accepted without"),
        ("visit_documents", {"review_status": "validated"}, "invalid_value", "validator_id"),
        (
            "visit_documents",
            {"review_status": "validated", "validated_at": AT},
            "invalid_value",
            "validator_id",
        ),
        ("visit_documents", {"validator_id": "staff-1", "validated_at": AT}, "invalid_value", "only there"),
        ("engagement", {"action": "sent", "duration_s": None}, "invalid_value", "no such action"),
        (
            "engagement",
            {"channel": "sms", "action": "opened", "duration_s": None},
            "invalid_value",
            "no such action",
        ),
        ("engagement", {"channel": "letter"}, "invalid_value", "channel"),
        ("engagement", {"action": "booked"}, "invalid_value", "duration_s"),
        ("engagement", {"duration_s": -1}, "invalid_value", "duration_s"),
    ],
)
def test_a_bad_value_is_a_problem_that_names_row_and_field(
    feed: str, change: dict[str, Any], reason: str, named: str
) -> None:
    good, problems = validate_records(feed, [record(feed), record(feed, **change), record(feed)])
    assert len(good) == 2
    assert [(problem.row, problem.reason) for problem in problems] == [(1, reason)]
    assert named in problems[0].detail


@pytest.mark.parametrize("status", ["cancelled_by_clinic", "rescheduled"])
def test_an_appointment_says_who_gave_it_up_and_a_visit_does_not(status: str) -> None:
    assert validate_records("appointments", [record("appointments", status=status)])[1] == []
    [problem] = validate_records("clinic_visits", [record("clinic_visits", status=status)])[1]
    assert problem.detail.startswith("status")


@pytest.mark.parametrize("status", ["validated", "rejected"])
def test_a_persons_decision_on_a_document_names_who_and_when(status: str) -> None:
    row = record("visit_documents", review_status=status, validator_id="staff-1", validated_at=AT)
    assert validate_records("visit_documents", [row]) == ([row], [])


def test_every_channel_has_its_actions_and_no_others() -> None:
    good = {
        (channel, action)
        for channel in ("app", "email", "sms", "push", "phone")
        for action in ("session", "sent", "opened", "clicked", "called", "booked")
        if not validate_records(
            "engagement", [record("engagement", channel=channel, action=action, duration_s=None)]
        )[1]
    }
    assert good == {
        *(("app", action) for action in ("session", "booked")),
        *(
            (channel, action)
            for channel in ("email", "push")
            for action in ("sent", "opened", "clicked", "booked")
        ),
        *(("sms", action) for action in ("sent", "clicked", "booked")),
        *(("phone", action) for action in ("called", "booked")),
    }


def test_a_missing_value_is_told_from_a_wrong_one_and_no_value_is_repeated() -> None:
    row = record("owners", contact_email="someone@example.org", sex="x")
    del row["op"]
    _, [problem] = validate_records("owners", [row])
    assert problem.reason == "invalid_value"
    assert "op" in problem.detail
    assert "someone" not in problem.detail
    del row["sex"]
    assert validate_records("owners", [row])[1][0].reason == "missing_value"


def test_an_unknown_feed_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="known: owners, pets"):
        validate_records("cats", [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=settings.default.max_examples // 4)
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_canonical_json_keeps_the_value_and_forgets_the_order(value: dict[str, Any]) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(dict(reversed(value.items()))) == text


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    assert canonical_json({"b": 1, "a": "Löwchen"}) == '{"a":"Löwchen","b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})
    with pytest.raises(TypeError):
        canonical_json({"a": AT})


@settings(max_examples=settings.default.max_examples // 4)
@given(st.lists(st.sampled_from([record("owners"), record("owners", sex="x"), {}]), max_size=20))
def test_every_row_is_either_good_or_a_problem(rows: list[dict[str, Any]]) -> None:
    good, problems = validate_records("owners", rows)
    assert len(good) + len(problems) == len(rows)
    assert [problem.row for problem in problems] == [
        i for i, row in enumerate(rows) if row != record("owners")
    ]
