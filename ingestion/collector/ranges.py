"""From buffered messages to a range's content: decode under the claim's terms, drop for consent, land.

Pure of Kafka: messages come as parallel lists. Consuming and deciding when a
range ends is in `engine`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.collector.consent import ConsentSnapshot, mentions_opted_out, opted_out_rows
from ingestion.collector.decode import DecodedBatch, decode_contract_json, decode_vendor
from ingestion.contracts.columns import REJECT_SCHEMA, TIMESTAMP
from ingestion.contracts.decoders import DECODERS, Decoder
from ingestion.contracts.telemetry import COLLAR_DECODER
from ingestion.lake.landing import Claim, LandingError, Manifest, land_range
from ingestion.lake.store import ObjectStore


class DecoderVersionError(LandingError):
    """A claim has to be decoded by a version that this release does not have."""


@dataclass
class Messages:
    """Messages of one partition in order of offset, as parallel lists; a message without a value is b""."""

    offsets: list[int] = field(default_factory=list)
    arrival_ms: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def split(self, end: int) -> "tuple[Messages, Messages]":
        """Messages before offset `end`, and the rest."""
        at = int(np.searchsorted(np.array(self.offsets, np.int64), end))
        return self._slice(0, at), self._slice(at, len(self))

    def _slice(self, low: int, high: int) -> "Messages":
        return Messages(
            self.offsets[low:high], self.arrival_ms[low:high], self.keys[low:high], self.payloads[low:high]
        )


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
    consent_dropped: int
    offset_gaps: int


def decode_messages(
    claim: Claim, messages: Messages, consent: ConsentSnapshot, max_message_bytes: int
) -> RangeContent:
    """Decode the messages of a claimed range; offsets without a message are gaps.

    `consent` is the snapshot the claim names. Raises DecoderVersionError.
    """
    arrival_us = np.array(messages.arrival_ms, np.int64) * 1000
    decoded = _decode(decoder_of(claim), messages.payloads, arrival_us, max_message_bytes)
    intervals = consent.intervals()
    dropped = opted_out_rows(intervals, decoded.table["device_id"], arrival_us[decoded.index])
    table = decoded.table.append_column(
        "kafka_offset", pa.array(np.array(messages.offsets, np.int64)[decoded.index])
    ).append_column("arrival_ts", pa.array(arrival_us[decoded.index]).cast(TIMESTAMP))
    if dropped.any():
        table = table.filter(pc.invert(pa.array(dropped)))
    return RangeContent(
        table,
        _reject_table(claim, messages, decoded, intervals),
        int(np.count_nonzero(dropped)),
        claim.end - claim.start - len(messages),
    )


def land_content(store: ObjectStore, claim: Claim, content: RangeContent) -> Manifest:
    """Land a decoded range."""
    return land_range(
        store,
        claim,
        content.table,
        content.rejects,
        consent_dropped=content.consent_dropped,
        offset_gaps=content.offset_gaps,
    )


def _decode(
    decoder: Decoder, payloads: Sequence[bytes], arrival_us: "np.ndarray", max_bytes: int
) -> DecodedBatch:
    if decoder.name == COLLAR_DECODER:
        return decode_contract_json(payloads, arrival_us, max_bytes)
    return decode_vendor(payloads, arrival_us, decoder.decode, max_bytes)


def _reject_table(
    claim: Claim, messages: Messages, decoded: DecodedBatch, intervals: dict[str, list[tuple[int, int]]]
) -> pa.Table:
    rows = []
    for reject in decoded.rejects:
        payload, key = messages.payloads[reject.index], messages.keys[reject.index]
        arrival_us = messages.arrival_ms[reject.index] * 1000
        kept = not mentions_opted_out(intervals, (key, payload), arrival_us)
        rows.append((messages.offsets[reject.index], arrival_us, reject, payload if kept else None))
    rows.sort(key=lambda row: row[0])
    count = len(rows)
    return pa.Table.from_arrays(
        [
            pa.repeat(pa.scalar(claim.stream_id), count),
            pa.repeat(pa.scalar(claim.partition, pa.int32()), count),
            pa.array([row[0] for row in rows], pa.int64()),
            pa.array([row[1] for row in rows], pa.int64()).cast(TIMESTAMP),
            pa.repeat(pa.scalar(claim.source_system), count),
            pa.array([row[2].reason for row in rows], pa.string()),
            pa.array([row[2].detail for row in rows], pa.string()),
            pa.array([row[3] for row in rows], pa.binary()),
        ],
        schema=REJECT_SCHEMA,
    )
