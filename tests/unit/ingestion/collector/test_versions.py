"""`schema_version` selects the form of a message, in the reference and in bulk alike."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from contracts import telemetry
from contracts.telemetry import (
    FORMS,
    NOT_BEFORE,
    PLAIN_FORM,
    Form,
    RejectError,
    believed_receipts,
    parse_event,
)
from ingestion.collector.decode import decode_contract_json

RECEIPTS = believed_receipts(datetime(2026, 6, 1), NOT_BEFORE)
ARRIVAL_US = int((datetime(2026, 6, 1) - datetime(1970, 1, 1)) / timedelta(microseconds=1))
EVENT: dict[str, Any] = {"device_id": "d", "event_ts": "2026-06-01T00:00:00Z", "event_id": "e"}


def message(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


def halved(event: dict[str, Any]) -> dict[str, Any]:
    """Version 2 sends steps of both legs, under another name; it calls devices collars."""
    if event["both_legs"] % 2:
        raise RejectError("range", "both_legs is odd")
    named = event | {"device_id": event["collar"], "step_count": event["both_legs"] // 2}
    return {name: value for name, value in named.items() if name not in ("collar", "both_legs")}


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, 2, Form(frozenset({"collar", "both_legs", "event_id"}), halved))


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (message(step_count=7, schema_version=1), {"device_id": "d", "step_count": 7, "schema_version": 1}),
        (message(step_count=7), {"device_id": "d", "step_count": 7, "schema_version": None}),
        (message(step_count=7, schema_version=None), {"step_count": 7, "schema_version": None}),
        (message(collar="c", both_legs=8, schema_version=2), {"device_id": "c", "step_count": 4}),
        # A field of the other version is an unknown one.
        (message(both_legs=8), {"device_id": "d", "step_count": None}),
        (message(collar="c", both_legs=7, schema_version=2), "range"),
        (message(collar="c", both_legs=2**33, schema_version=2), "range"),
        (message(collar=5, both_legs=8, schema_version=2), "type"),
        (message(schema_version=3), "version"),
        (message(schema_version=0), "version"),
        (message(schema_version=-1), "version"),
        (message(schema_version=10**60), "version"),
        (message(schema_version="2"), "type"),
        (message(schema_version=2.0), "type"),
        (message(schema_version=True), "type"),
        (message(both_legs=1)[:-1] + b',"both_legs":2}', None),
        (message(collar="c", both_legs=2, schema_version=2)[:-1] + b',"both_legs":2}', "malformed"),
        (message(collar="c", both_legs=2, schema_version=2)[:-1] + b',"gps_lat":1,"gps_lat":1}', "malformed"),
        (message(schema_version=3)[:-1] + b',"schema_version":1}', "malformed"),
    ],
)
def test_the_version_selects_the_form(payload: bytes, expected: Any) -> None:
    decoded = decode_contract_json([payload], np.array([ARRIVAL_US]), RECEIPTS)
    if isinstance(expected, str):
        with pytest.raises(RejectError) as caught:
            parse_event(payload)
        assert caught.value.reason == expected
        assert [(r.reason, r.detail) for r in decoded.rejects] == [(expected, caught.value.detail)]
        return
    event = parse_event(payload)
    assert expected is None or expected.items() <= event.items()
    assert decoded.table.drop_columns(["payload"]).to_pylist() == [event]


def test_bulk_decoding_reads_only_versions_of_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it to read another version's messages, it would take their fields for the contract's."""
    assert {version for version in FORMS if FORMS[version] is PLAIN_FORM} == telemetry.SCHEMA_VERSIONS
    monkeypatch.setitem(FORMS, 2, Form(frozenset(), lambda event: event | {"weight_kg": Decimal(2)}))
    decoded = decode_contract_json(
        [message(weight_kg=1, schema_version=2)] * 3, np.full(3, ARRIVAL_US), RECEIPTS
    )
    assert decoded.table["weight_kg"].to_pylist() == [Decimal(2)] * 3
