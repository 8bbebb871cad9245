"""Documents and contacts on rows worked out by hand: who waits for a person, who did what, who may be reached."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from seeded_raw import record

AS_OF = "2026-06-10 00:00:00"
MODELS = ("anl_owner_engagement", "anl_reachable_owners", "anl_documents_to_review")
CHECKED = (*MODELS, "cur_engagement", "cur_visit_documents", "messages_respect_consent")


def at(moment: str) -> datetime:
    """`06-03 10:00` of 2026."""
    return datetime.fromisoformat(f"2026-{moment}")


def flags(**values: bool) -> str:
    return json.dumps(
        {name: {"at": "2026-05-01T08:00:00Z", "value": value} for name, value in values.items()}
    )


def owner(owner_id: str, changed_at: str, consent: str | None, **more: Any) -> dict[str, Any]:
    return record("owners", owner_id, at(changed_at), consent_flags=consent, **more)


OWNERS = [
    owner("o1", "05-01 08:00", flags(analytics=True, push=True, sms=False, email=True)),
    owner("o1", "06-03 10:00", flags(analytics=True, push=False, sms=False, email=True)),
    owner("o2", "05-01 08:00", flags(analytics=True, sms=True)),
    owner("o2", "06-02 00:00", flags(analytics=False, sms=True)),
    owner("o2", "06-04 00:00", flags(analytics=True, sms=True)),
    owner("o3", "05-01 08:00", flags(analytics=True, push=True)),
    owner("o3", "06-05 00:00", flags(analytics=False, push=True)),
    owner("o4", "05-01 08:00", None),
    owner("o5", "05-01 08:00", flags(push=True)),
    owner("o5", "06-04 00:00", None, op="delete"),
    # Refuses everything, then says one thing and later nothing at all.
    owner("o6", "05-01 08:00", flags(analytics=False, push=False, email=True)),
    owner("o6", "06-02 00:00", flags(push=True)),
    owner("o6", "06-03 00:00", None),
    # The same of somebody who refused it for a while.
    owner("o7", "05-01 08:00", flags(analytics=True, email=False)),
    owner("o7", "06-02 00:00", flags(analytics=False)),
    owner("o7", "06-03 00:00", flags(push=False)),
    owner("o7", "06-05 00:00", flags(analytics=True)),
]
PETS = [
    record("pets", "p1", at("05-20 00:00"), owner_id="o1"),
    record("pets", "p1", at("06-02 12:00"), owner_id="o2"),
]
APPOINTMENTS = [
    record("appointments", key, at("05-02 00:00"), pet_id="p1", scheduled_ts=at(scheduled), status=status)
    for key, scheduled, status in [
        ("m1", "06-02 09:00", "completed"),  # o1's pet until noon
        ("m2", "06-02 15:00", "no_show"),  # o2's, who refuses analytics that day
        ("m3", "06-05 09:00", "cancelled"),
        ("m4", "06-20 09:00", "cancelled"),  # after the data's present
        ("m5", "05-10 09:00", "no_show"),  # before the pet's first version: its first owner's
        ("m6", "06-06 09:00", "scheduled"),  # nothing has become of it
    ]
]
CONTACTS = [
    record(
        *("engagement", f"g{number:02}", at(moment)),
        owner_id=owner_id,
        channel=channel,
        action=action,
        occurred_at=at(moment),
        duration_s=duration_s,
        kafka_offset=number,
    )
    for number, (owner_id, moment, channel, action, duration_s) in enumerate(
        [
            ("o1", "05-04 12:00", "app", "session", 600),
            ("o1", "06-01 09:00", "push", "sent", None),
            ("o1", "06-01 09:05", "push", "opened", None),
            ("o1", "06-01 10:00", "email", "sent", None),
            ("o1", "06-01 23:59:59", "app", "session", 90),
            ("o1", "06-02 08:00", "email", "opened", None),
            ("o1", "06-02 08:01", "email", "clicked", None),
            ("o1", "06-03 07:00", "push", "sent", None),
            ("o2", "06-01 08:00", "phone", "called", 120),
            ("o2", "06-02 08:00", "phone", "called", 60),  # while analytics is refused
            ("o3", "06-01 08:00", "app", "session", 30),  # refuses analytics now
            ("o4", "06-01 08:00", "app", "session", None),
            ("o4", "06-01 09:00", "app", "booked", None),
            ("o4", "06-11 09:00", "app", "session", 10),  # a clock in the future
            ("o5", "06-03 08:00", "app", "session", 30),
            ("o5", "06-05 08:00", "push", "opened", None),  # deleted by then
            ("o6", "06-05 08:00", "app", "session", 30),
            *(("o7", f"06-0{day} 08:00", "app", "session", 30) for day in (1, 4, 6)),
            ("ghost", "06-01 08:00", "phone", "called", None),  # nobody has stated this owner
        ]
    )
]


def document(
    key: str, changed_at: str, confidence: str | None, status: str | None, **more: Any
) -> dict[str, Any]:
    return record(
        *("visit_documents", key, at(changed_at)),
        **{
            "visit_id": "v1",
            "pet_id": "p1",
            "document_uri": f"s3://documents/{key}",
            "ocr_engine": "engine-1",
            "ocr_confidence": None if confidence is None else Decimal(confidence),
            "review_status": status,
            **more,
        },
    )


VISITS = [
    record("clinic_visits", "v1", at("06-01 08:00"), pet_id="p1", clinic_id="c1", visit_ts=at("06-01 08:00")),
    record("clinic_visits", "v1", at("06-02 08:00"), pet_id="p1", clinic_id="c2", visit_ts=at("06-01 08:00")),
]
DECIDED = {"validator_id": "staff-1", "validated_at": at("06-02 08:00")}
DOCUMENTS = [
    document("d1", "06-01 09:00", "0.799", "pending"),
    document("d2", "06-01 09:00", "0.800", "pending"),
    document("d3", "06-01 09:00", "0.500", "pending"),
    document("d3", "06-02 08:00", "0.500", "validated", **DECIDED),
    document("d4", "06-01 09:00", None, "pending"),
    document("d5", "06-01 09:00", None, "pending", ocr_engine=None),
    document("d6", "06-01 09:00", "0.700", "auto_accepted"),
    document("d7", "06-01 09:00", "0.400", "pending"),
    document("d7", "06-02 09:00", None, None, op="delete"),
    document("d8", "06-01 09:00", "0.300", None, visit_id="v9"),
    document("d9", "06-01 09:00", "0.900", "auto_accepted"),
    document("d9", "06-03 09:00", "0.600", "pending"),
    document("d10", "06-01 09:00", "0.100", "rejected", **DECIDED),
]


def raw(contacts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        "owners": OWNERS,
        "pets": PETS,
        "appointments": APPOINTMENTS,
        "clinic_visits": VISITS,
        "visit_documents": DOCUMENTS,
        "engagement": contacts,
    }


def built(warehouse: Any) -> Any:
    warehouse.build(
        "--select",
        *(f"+{model}" for model in MODELS),
        variables={"as_of_ts": AS_OF},
        without=("unit_test", "test"),
    )
    return warehouse


def checked(warehouse: Any) -> dict[str, str]:
    """What is wrong by dbt's own tests of these tables: status by test."""
    outcome = warehouse.invoke("test", "--select", *CHECKED, "--indirect-selection", "cautious")
    assert outcome.exception is None
    assert len(outcome.result.results) > 10
    return {item.node.name: str(item.status) for item in outcome.result.results if str(item.status) != "pass"}


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    return built(make_warehouse(raw(CONTACTS)))


def test_the_tables_keep_their_own_rules(warehouse):
    assert checked(warehouse) == {}


def days(warehouse: Any, *columns: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    listed = warehouse.rows(f"select owner_id, event_date, {', '.join(columns)} from anl.owner_engagement")
    return {
        (row["owner_id"], f"{row['event_date']:%m-%d}"): tuple(row[column] for column in columns)
        for row in listed
    }


def test_what_owners_did_by_day(warehouse):
    counted = days(
        warehouse,
        *("session_count", "session_s", "session_minutes", "sent_count", "opened_count", "clicked_count"),
        *("call_count", "booking_count"),
    )
    assert counted == {
        ("o1", "05-04"): (1, 600, 10.0, 0, 0, 0, 0, 0),
        ("o1", "05-10"): (0, 0, 0.0, 0, 0, 0, 0, 0),
        ("o1", "06-01"): (1, 90, 1.5, 2, 1, 0, 0, 0),
        ("o1", "06-02"): (0, 0, 0.0, 0, 1, 1, 0, 0),
        ("o1", "06-03"): (0, 0, 0.0, 1, 0, 0, 0, 0),
        ("o2", "06-01"): (0, 0, 0.0, 0, 0, 0, 1, 0),
        ("o2", "06-05"): (0, 0, 0.0, 0, 0, 0, 0, 0),
        ("o4", "06-01"): (1, 0, 0.0, 0, 0, 0, 0, 1),
        ("o5", "06-03"): (1, 30, 0.5, 0, 0, 0, 0, 0),
        ("o5", "06-05"): (0, 0, 0.0, 0, 1, 0, 0, 0),
        ("o7", "06-01"): (1, 30, 0.5, 0, 0, 0, 0, 0),
        ("o7", "06-06"): (1, 30, 0.5, 0, 0, 0, 0, 0),
        ("ghost", "06-01"): (0, 0, 0.0, 0, 0, 0, 1, 0),
    }


def test_messages_by_channel(warehouse):
    columns = [
        *("push_sent_count", "push_opened_count", "push_clicked_count"),
        *(
            "email_sent_count",
            "email_opened_count",
            "email_clicked_count",
            "sms_sent_count",
            "sms_clicked_count",
        ),
    ]
    counted = {key: row for key, row in days(warehouse, *columns).items() if any(row)}
    assert counted == {
        ("o1", "06-01"): (1, 1, 0, 1, 0, 0, 0, 0),
        ("o1", "06-02"): (0, 0, 0, 0, 1, 1, 0, 0),
        ("o1", "06-03"): (1, 0, 0, 0, 0, 0, 0, 0),
        ("o5", "06-05"): (0, 1, 0, 0, 0, 0, 0, 0),
    }


def test_appointments_are_of_who_owned_the_pet_then(warehouse):
    columns = ("appointment_kept_count", "appointment_no_show_count", "appointment_cancelled_count")
    counted = {key: row for key, row in days(warehouse, *columns).items() if any(row)}
    assert counted == {
        ("o1", "05-10"): (0, 1, 0),
        ("o1", "06-02"): (1, 0, 0),
        ("o2", "06-05"): (0, 0, 1),
    }


def test_the_thirty_days_that_end_with_a_day(warehouse):
    columns = [
        *("session_count_30d", "session_s_30d", "active_day_count_30d", "sent_count_30d", "opened_count_30d"),
        *(
            "clicked_count_30d",
            "call_count_30d",
            "appointment_kept_count_30d",
            "appointment_no_show_count_30d",
        ),
        "open_ratio_30d",
    ]
    counted = days(warehouse, *columns)
    assert counted["o1", "05-04"] == (1, 600, 1, 0, 0, 0, 0, 0, 0, None)
    assert counted["o1", "06-01"] == (2, 690, 2, 2, 1, 0, 0, 0, 1, 0.5)
    # May 4 is the first of the 30 days that end with June 2 and the last before those of June 3.
    assert counted["o1", "06-02"] == (2, 690, 2, 2, 2, 1, 0, 1, 1, 1.0)
    assert counted["o1", "06-03"] == (1, 90, 1, 3, 2, 1, 0, 1, 1, pytest.approx(2 / 3))
    # The call of June 2, while analytics was refused, is in no sum.
    assert counted["o2", "06-05"][6] == 1


def test_reachability_is_that_of_the_days_end(warehouse):
    reachable = days(warehouse, "is_reachable_push", "is_reachable_sms", "is_reachable_email")
    assert reachable["o1", "06-02"] == (True, False, True)
    assert reachable["o1", "06-03"] == (False, False, True)
    assert reachable["o2", "06-01"] == (False, True, False)
    assert reachable["o5", "06-03"] == (True, False, False)
    for nobody in (("o5", "06-05"), ("o4", "06-01"), ("ghost", "06-01")):
        assert reachable[nobody] == (False, False, False)


def test_only_who_consents_now_can_be_reached(warehouse):
    listed = warehouse.rows("select * from anl.reachable_owners order by owner_id, channel")
    stated = datetime(2026, 5, 1, 8)
    assert listed == [
        {"owner_id": "o1", "channel": "email", "consented_at": stated},
        {"owner_id": "o2", "channel": "sms", "consented_at": stated},
        # Refusing analytics does not refuse messages.
        {"owner_id": "o3", "channel": "push", "consented_at": stated},
        # Last said, whatever later records leave out.
        {"owner_id": "o6", "channel": "email", "consented_at": stated},
        {"owner_id": "o6", "channel": "push", "consented_at": stated},
    ]


def test_documents_that_ocr_is_not_sure_of_wait_until_a_person_decides(warehouse):
    listed = warehouse.rows(
        "select document_id, clinic_id, review_reason, review_status, waiting_since_ts"
        " from anl.documents_to_review order by document_id"
    )
    scanned = at("06-01 09:00")
    assert [tuple(row.values()) for row in listed] == [
        ("d1", "c2", "low_confidence", "pending", scanned),
        ("d4", "c2", "unreadable", "pending", scanned),
        ("d6", "c2", "low_confidence", "auto_accepted", scanned),
        ("d8", "unknown", "low_confidence", None, scanned),
        ("d9", "c2", "low_confidence", "pending", scanned + timedelta(days=2)),
    ]


def test_the_current_state_of_documents_names_who_decided(warehouse):
    listed = warehouse.rows(
        "select document_id, review_status, validator_id, validated_at, ocr_confidence from cur.visit_documents"
        " where document_id in ('d3', 'd7', 'd9') order by 1"
    )
    assert [tuple(row.values()) for row in listed] == [
        ("d3", "validated", "staff-1", at("06-02 08:00"), Decimal("0.500")),
        ("d9", "pending", None, None, Decimal("0.600")),
    ]


def test_a_message_against_the_owners_will_warns(make_warehouse):
    unwanted = [
        ("o1", "06-03 11:00", "push"),  # an hour after the refusal
        ("o1", "06-03 11:00", "sms"),
        ("o4", "06-03 11:00", "email"),  # never stated
        ("o5", "06-05 11:00", "push"),  # no longer a client
        ("o7", "06-08 11:00", "email"),  # refused before records that say nothing of it
        ("o1", "06-03 11:00", "email"),  # wanted
        ("o6", "06-08 11:00", "email"),  # wanted, though later records do not say so
    ]
    contacts = [
        record(
            *("engagement", f"x{number}", at(moment)),
            owner_id=owner_id,
            channel=channel,
            action="sent",
            occurred_at=at(moment),
            kafka_offset=100 + number,
        )
        for number, (owner_id, moment, channel) in enumerate(unwanted)
    ]
    warehouse = built(make_warehouse(raw(CONTACTS + contacts)))
    outcome = warehouse.invoke("test", "--select", "messages_respect_consent")
    [result] = outcome.result.results
    assert (str(result.status), result.failures) == ("warn", 5)


def test_without_any_document_or_contact_the_tables_are_empty(make_warehouse):
    warehouse = built(make_warehouse({}))
    for model in MODELS:
        assert warehouse.rows(f"select count(*) as n from {model.replace('_', '.', 1)}") == [{"n": 0}]
    assert checked(warehouse) == {}
