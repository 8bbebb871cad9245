"""Where a partition goes on: from its claim chain in the lake, whatever the committed offset says.

Claims that were made and not finished come first, to be finished with their own
bounds. The committed offset is for those who watch the lag. Nothing here consumes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from contracts.columns import TELEMETRY_SCHEMA
from ingestion.broker.client import Stream
from lake.landing import (
    FILLED_BY_CLAIM,
    Claim,
    Manifest,
    chain_end,
    land_range,
    open_claims,
    open_claims_of_streams,
    recover_range,
)
from lake.store import ObjectStore

# Why claims of an embedded broker that is gone hold nothing: their messages are published again.
EMBEDDED_STOPPED = "the embedded broker stopped"
# Why claims of a deleted topic hold nothing: whoever claimed them did not live to land them.
TOPIC_DELETED = "the topic was deleted"

_log = logging.getLogger(__name__)


class LogTruncatedError(Exception):
    """A partition's log ends before offsets that were already landed: the broker lost or replaced data."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What the lake says of a partition: where its claims end and which are still without a main object.

    `finished` are manifests of ranges whose main object was there and only they were missing.
    """

    chain_end: int
    unfinished: deque[Claim]
    finished: list[Manifest]

    @property
    def start(self) -> int:
        """The first offset whose message is needed."""
        return self.unfinished[0].start if self.unfinished else self.chain_end


def resume(store: ObjectStore, stream: Stream, partition: int, low: int, high: int) -> Resumption:
    """Find out where to go on; `low` and `high` are the bounds of the partition's log now.

    The chain of claims tells, not the log: a partition without claims goes on at 0,
    whatever of it the log has lost. Raises LogTruncatedError if offsets were landed
    that the log has never had.
    """
    end = chain_end(store, stream.stream_id, partition)
    if end > high:
        raise LogTruncatedError(
            f"{stream.topic}[{partition}] ends at {high}, but offsets up to {end} were landed "
            f"from {stream.stream_id}; the broker lost data: recreate the topic (a new stream)"
        )
    unfinished: deque[Claim] = deque()
    finished = []
    for claim in open_claims(store, stream.stream_id, partition):
        manifest = recover_range(store, claim)
        if manifest is not None:
            finished.append(manifest)
            continue
        unfinished.append(claim)
        if claim.start < low:
            _log.warning(
                "%s[%d]: offsets %d to %d were claimed, not landed, and are gone: the log starts at %d",
                stream.topic,
                partition,
                claim.start,
                min(low, claim.end),
                low,
            )
    return Resumption(end, unfinished, finished)


def close_dead_streams(store: ObjectStore, prefix: str, alive: set[str]) -> int:
    """Finish claims of earlier starts of an embedded broker, whose messages are gone; how many there were.

    Their streams begin with `prefix` and are not `alive`. What they announced was never
    seen landed, so its producer publishes it again.
    """
    dead = [claim for claim in open_claims_of_streams(store, prefix) if claim.stream_id not in alive]
    return close_claims(store, dead, EMBEDDED_STOPPED)


def close_claims(store: ObjectStore, claims: Iterable[Claim], reason: str) -> int:
    """Finish claims whose messages nobody can read any more, empty unless they were landed; how many."""
    closed = 0
    for claim in claims:
        if recover_range(store, claim) is None:
            _log.warning(
                "claim [%d, %d) of %s partition %d is closed empty: %s",
                claim.start,
                claim.end,
                claim.stream_id,
                claim.partition,
                reason,
            )
            gone = msgspec.structs.replace(claim, gap_reason=reason)
            land_range(store, gone, _no_rows(), offset_gaps=claim.end - claim.start)
        closed += 1
    return closed


def _no_rows() -> pa.Table:
    names = [field for field in TELEMETRY_SCHEMA if field.name not in FILLED_BY_CLAIM]
    return pa.schema(names).empty_table()
