"""What is shown of rejects names the field and tells nothing of a person."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.telemetry import RejectError, parse_event
from ingestion.rejects.examples import examples_of, shown_device, shown_value

EVENT = {"device_id": "c-1", "event_id": "e-1", "event_ts": "2026-06-01T00:00:00Z"}


def reject(**changes: Any) -> dict[str, Any]:
    """A message that the contract refuses, as its reject object holds it."""
    payload = json.dumps(EVENT | changes).encode()
    with pytest.raises(RejectError) as refused:
        parse_event(payload)
    return {"reason": refused.value.reason, "detail": refused.value.detail, "payload": payload}


def test_faults_come_by_frequency_with_forms_of_their_values() -> None:
    rejects = [
        *(reject(pulse_bpm=value) for value in (-3, -3, -12.5, 1)[:3]),
        reject(body_temp_c="38,5"),
        reject(event_ts="2026-06-01 10:00"),
        {"reason": "empty", "detail": "the message has no content", "payload": b""},
        {"reason": "range", "detail": "lick_count is outside its bounds", "payload": None},
    ]
    shown = [str(one) for one in examples_of(rejects, 4)]
    assert shown == [
        "range: pulse_bpm is outside its bounds: -3, -12.5",
        "empty: the message has no content",
        "range: lick_count is outside its bounds",
        'timestamp: event_ts is no RFC 3339 time with a zone: "****-**-** **:**"',
    ]
    assert [str(one) for one in examples_of(rejects[3:4], 4)] == ['type: body_temp_c is not a number: "**,*"']


SECRETS = ("Anna Muster", "anna.muster@example.ch", "+41 79 123 45 67", "0791234567", "756098100123456")


@given(
    st.sampled_from(["device_id", "pulse_bpm", "gps_lat", "body_temp_c", "event_ts", "anything"]),
    st.recursive(
        st.sampled_from([*SECRETS, 791234567, 756098100123456, 47.376888, None, True]),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SECRETS), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)
def test_nothing_of_a_value_that_may_be_a_persons_is_shown(field: str, value: Any) -> None:
    for payload in (json.dumps({field: value}), json.dumps([{"deep": {field: value}}])):
        shown = shown_value(f"{field} is not a number", payload.encode()) or ""
        assert not any(char.isdigit() for char in shown)
        assert not any(word in shown for secret in SECRETS for word in secret.split())


def test_a_message_that_is_no_json_or_lacks_the_field_shows_nothing() -> None:
    assert shown_value("pulse_bpm is not a number", b"{") is None
    assert shown_value("pulse_bpm is not a number", b"[" * 100_000) is None
    assert shown_value("device_id is required", b"{}") is None
    assert shown_value("device_id is required", b'{"device_id": null}') == "null"


@pytest.mark.parametrize(
    ("device_id", "shown"),
    [
        ("collar-0042", "collar-0042"),
        ("70B3D57ED0001234", "70B3D57ED0001234"),
        ("Anna Muster", "**** ******"),
        ("Muster", "******"),
        ("a1@example.ch", "**@*******.**"),
        ("079-123-45-67", "***-***-**-**"),
        ("756098100123456", "*" * 15),
        ("x1\n", "**?"),
    ],
)
def test_a_devices_id_is_shown_only_where_it_is_a_code(device_id: str, shown: str) -> None:
    assert shown_device(device_id) == shown
