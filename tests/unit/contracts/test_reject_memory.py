"""A rejected message holds nothing alive after it was handled: no waiting for the cycle collector."""

import gc
import weakref

import pytest

from contracts.telemetry import RejectError, parse_event


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"device_id": "d"}',
        b'{"device_id": 1, "event_id": true, "event_ts": "2026-06-01T00:00:00Z", "step_count": 1.5}',
        b'{"device_id": "d", "event_id": "e", "event_ts": "2026-06-01T00:00:00"}',
    ],
    ids=["empty", "malformed", "missing", "types", "zone-less"],
)
def test_a_reject_leaves_no_reference_cycle(payload):
    gc.disable()
    try:
        try:
            parse_event(payload)
        except RejectError as error:
            held = weakref.ref(error)
        assert held() is None
    finally:
        gc.enable()
