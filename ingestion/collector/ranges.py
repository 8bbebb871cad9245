"""From buffered messages to a range's content: decode under the claim's terms, drop for consent, land.

Pure of Kafka: messages come packed. Consuming and deciding when a range ends is in
`engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import REJECT_SCHEMA, TIMESTAMP
from contracts.decoders import DECODERS, Decoder
from contracts.telemetry import COLLAR_DECODER, ReceiptBounds, believed_receipts
from ingestion.collector.consent import (
    ConsentSnapshot,
    drops_by_reason,
    mentions_opted_out,
    opted_out_rows,
)
from ingestion.collector.decode import DecodedBatch, concatenate, decode_contract_json, decode_vendor
from ingestion.collector.messages import Packed
from lake.landing import Claim, LandingError, Manifest, land_range
from lake.redactions import epoch_us
from lake.store import ObjectStore

# The end of the year 9998, which leaves room for a day ahead.
LAST_ARRIVAL_MS = 253_370_764_799_999


class DecoderVersionError(LandingError):
    """A claim has to be decoded by a version that this release does not have."""


def decoder_label(decoder: Decoder) -> str:
    """How a claim names its decoder."""
    return f"{decoder.name}@{decoder.version}"


def decoder_of(claim: Claim) -> Decoder:
    """The decoder a claim names. Raises DecoderVersionError if this release decodes otherwise."""
    decoder = DECODERS.get(claim.decoder.partition("@")[0])
    if decoder is None or decoder_label(decoder) != claim.decoder:
        raise DecoderVersionError(
            f"{claim.stream_id} partition {claim.partition} [{claim.start}, {claim.end}) was claimed for "
            f"decoder {claim.decoder}, which is not here; finish it with the release that claimed it"
        )
    return decoder


@dataclass(frozen=True, slots=True)
class RangeContent:
    """What `land_range` takes for a range, besides its claim."""

    table: pa.Table
    rejects: pa.Table
    consent_dropped_by_reason: dict[str, int]
    offset_gaps: int

    @property
    def consent_dropped(self) -> int:
        """Number of dropped messages, whatever the reason."""
        return sum(self.consent_dropped_by_reason.values())


def decode_messages(
    claim: Claim, parts: Sequence[Packed], consent: ConsentSnapshot, max_message_bytes: int
) -> RangeContent:
    """Decode the messages of a claimed range; offsets without a message are gaps.

    `consent` is the snapshot the claim names. A receipt that the claim does not believe makes a message a reject.
    Raises DecoderVersionError.
    """
    decoder = decoder_of(claim)
    intervals = consent.intervals()
    believed = believed_receipts(claim.claimed_at, claim.not_before)
    decoded = [_decode(decoder, part, believed, max_message_bytes) for part in parts]
    whole = concatenate(decoded)
    offsets = _whole([part.offsets for part in parts])
    arrival_us = _micros(_whole([part.arrival_ms for part in parts]))
    device_ids = whole.table["device_id"]
    dropped = opted_out_rows(intervals, device_ids, arrival_us[whole.index])
    table = whole.table.append_column("kafka_offset", pa.array(offsets[whole.index])).append_column(
        "arrival_ts", pa.array(arrival_us[whole.index]).cast(TIMESTAMP)
    )
    drops: dict[str, int] = {}
    if dropped.any():
        theirs = device_ids.filter(pa.array(dropped))
        drops = drops_by_reason(consent, theirs, arrival_us[whole.index][dropped])
        table = table.filter(pc.invert(pa.array(dropped)))
    rejects = [
        row
        for part, batch in zip(parts, decoded, strict=True)
        for row in _reject_rows(part, batch, intervals, claim)
    ]
    return RangeContent(
        table,
        _reject_table(claim, rejects),
        drops,
        claim.end - claim.start - len(offsets),
    )


def _micros(arrival_ms: Any) -> Any:
    """Kafka's timestamps in microseconds.

    A producer may take another unit for milliseconds: what lies beyond all dates becomes
    the last one, so that the message is a reject (`clock`) and not an overflow.
    """
    return np.clip(arrival_ms, 0, LAST_ARRIVAL_MS) * 1000


def _whole(arrays: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *arrays])


def land_content(store: ObjectStore, claim: Claim, content: RangeContent) -> Manifest:
    """Land a decoded range."""
    return land_range(
        store,
        claim,
        content.table,
        content.rejects,
        consent_dropped=content.consent_dropped,
        consent_dropped_by_reason=content.consent_dropped_by_reason,
        offset_gaps=content.offset_gaps,
    )


def _decode(decoder: Decoder, part: Packed, believed: ReceiptBounds, max_bytes: int) -> DecodedBatch:
    arrival_us = _micros(part.arrival_ms)
    if decoder.name == COLLAR_DECODER:
        return decode_contract_json(part.payloads, arrival_us, believed, max_bytes)
    return decode_vendor(part.payloads, arrival_us, believed, decoder.decode, max_bytes)


_RejectRow = tuple[int, int, str, str, bytes | None]
"""Offset, receipt in epoch microseconds, reason, detail, payload."""


def _reject_rows(
    part: Packed, batch: DecodedBatch, intervals: dict[str, list[tuple[int, int]]], claim: Claim
) -> Iterator[_RejectRow]:
    believed = believed_receipts(claim.claimed_at, claim.not_before)
    first_us, last_us, claimed_us = map(epoch_us, (believed.first, believed.last, claim.claimed_at))
    for reject in batch.rejects:
        payload, key = part.payloads[reject.index], part.keys[reject.index]
        arrival_us = int(_micros(part.arrival_ms[reject.index]))
        # What cannot have been received then is judged by when it was claimed.
        received_us = arrival_us if first_us <= arrival_us <= last_us else claimed_us
        kept = not mentions_opted_out(intervals, (key, payload), received_us)
        yield (
            int(part.offsets[reject.index]),
            arrival_us,
            reject.reason,
            reject.detail,
            payload if kept else None,
        )


def _reject_table(claim: Claim, rows: Sequence[_RejectRow]) -> pa.Table:
    count = len(rows)
    return pa.Table.from_arrays(
        [
            pa.repeat(pa.scalar(claim.stream_id), count),
            pa.repeat(pa.scalar(claim.partition, pa.int32()), count),
            pa.array([row[0] for row in rows], pa.int64()),
            pa.array([row[1] for row in rows], pa.int64()).cast(TIMESTAMP),
            pa.repeat(pa.scalar(claim.source_system), count),
            pa.array([row[2] for row in rows], pa.string()),
            pa.array([row[3] for row in rows], pa.string()),
            pa.array([row[4] for row in rows], pa.binary()),
        ],
        schema=REJECT_SCHEMA,
    )
