"""A claimed range decoded under its claim: what the claim says decides, whoever replays it and whenever."""

import json
from datetime import datetime, timedelta
from typing import Any

import landed
import numpy as np
import pyarrow as pa

from ingestion.collector.consent import ConsentSnapshot, OptOut
from ingestion.collector.messages import Packed, pack
from ingestion.collector.ranges import RangeContent, decode_messages
from lake.landing import Claim

CLAIMED_AT = datetime(2026, 6, 1, 12)
EPOCH = datetime(1970, 1, 1)
MILLISECOND = timedelta(milliseconds=1)
NOBODY = ConsentSnapshot("s", CLAIMED_AT, [])


def claim(messages: int, **changes: Any) -> Claim:
    return landed.claim(0, messages, **{"claimed_at": CLAIMED_AT, "consent_snapshot_id": "s", **changes})


def decoded(
    receipts: list[datetime], under: Claim | None = None, consent: ConsentSnapshot = NOBODY
) -> RangeContent:
    """Messages that a producer stamped so, and whose collar had the same clock."""
    payloads = [
        json.dumps(
            {"device_id": "d", "event_id": f"e{number}", "event_ts": f"{moment.isoformat()}Z"}
        ).encode()
        for number, moment in enumerate(receipts)
    ]
    messages = Packed(
        np.arange(len(receipts)),
        np.array([(moment - EPOCH) // MILLISECOND for moment in receipts], np.int64),
        pack([b""] * len(receipts)),
        pack(payloads),
    )
    return decode_messages(under or claim(len(receipts)), [messages], consent, 65536)


def reasons(content: RangeContent) -> list[tuple[int, str]]:
    return [*zip(*(content.rejects[name].to_pylist() for name in ("kafka_offset", "reason")), strict=True)]


def test_a_message_stamped_years_ahead_or_long_ago_is_a_clock_reject() -> None:
    content = decoded([CLAIMED_AT, datetime(2036, 1, 1), EPOCH, datetime(1999, 12, 31), datetime(2017, 6, 3)])
    assert reasons(content) == [(1, "clock"), (2, "clock"), (3, "clock")]
    assert content.table["kafka_offset"].to_pylist() == [0, 4]


def test_an_hour_after_the_claim_is_the_latest_receipt() -> None:
    latest = CLAIMED_AT + timedelta(hours=1)
    content = decoded([latest, latest + MILLISECOND])
    assert reasons(content) == [(1, "clock")]


def test_the_claim_says_from_when_on_receipts_are_believed() -> None:
    since = datetime(2026, 1, 1)
    content = decoded([since, since - MILLISECOND], claim(2, not_before=since))
    assert reasons(content) == [(1, "clock")]


def test_rejects_that_cannot_have_been_received_then_keep_no_payload_of_an_opted_out_device() -> None:
    """A stamp of 1970 is before every refusal: what counts is when the message was claimed."""
    refused = ConsentSnapshot("s", CLAIMED_AT, [OptOut("d", CLAIMED_AT - timedelta(days=1), None)])
    content = decoded([EPOCH, datetime(2036, 1, 1)], consent=refused)
    assert reasons(content) == [(0, "clock"), (1, "clock")]
    assert content.rejects["payload"] == pa.chunked_array([pa.nulls(2, pa.binary())])
