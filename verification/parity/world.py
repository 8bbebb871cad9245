"""What lands, step by step: a simulated fleet's days, and beside them everything that comes wrong.

The first step is the initial load. Each further one is a day of the fleet with its record
extracts, and: events that were held back since the first day, events that come again, unchanged
and with other content, a change that is dated before what is known, a deletion, a record that
comes again, two records of one instant that contradict each other, and a complete extract that
lacks what the one before had. The last but one erases a household, the last brings nothing: days
become complete as time passes. Equal sizes give equal bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from contracts.consent import AnalyticsDefault
from contracts.decoders import DECODERS
from contracts.records import RECORD_KEYS, records_table
from contracts.registry import RECORD_FEED_NAMES, TELEMETRY_FEED
from contracts.telemetry import COLLAR_DECODER, MAX_MESSAGE_BYTES
from governance.erasure.scope import request_erasure
from ingestion.collector.consent import build_consent_snapshot
from ingestion.collector.messages import Packed, pack
from ingestion.collector.ranges import decode_messages, decoder_label, land_content
from ingestion.extracts.model import RecordExtract
from lake.extract import land_extract
from lake.landing import Claim, claim_range, list_manifests
from lake.progress import PartitionSeen, ProgressMark, put_progress
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.store import ObjectStore
from simulation.config import ORDINARY, FleetConfig
from simulation.fleet import Fleet

START = date(2026, 6, 1)
PARTITIONS = 2
STREAM = "parity.telemetry.topic"
# Of the first day's events every so many-th comes with a later step; of each day's, so many-th comes again.
HELD_BACK_EVERY = 40
REPEATED_EVERY = 50
RANGES_PER_DAY = 4
ERASURE_DAYS = 30


@dataclass(frozen=True)
class Message:
    """One telemetry message as the broker has it; `arrival_ms` since 1970."""

    key: bytes
    value: bytes
    arrival_ms: int


@dataclass(frozen=True)
class Step:
    """One load and build: its name, what it brings in words, and the moment it happens (naive UTC).

    Builds of tested steps run dbt's data tests, too.
    """

    name: str
    brings: str
    at: datetime
    extracts: tuple[RecordExtract, ...] = ()
    messages: tuple[Message, ...] = ()
    erased_owner: str | None = None
    is_tested: bool = False


@dataclass(frozen=True)
class WorldSize:
    """Collars, days of the initial load, increments after it, the seed; whether the two last steps come (without
    them the last increment brings the erasure, too), and whether dbt's data tests run."""

    collars: int = 12
    initial_days: int = 4
    increments: int = 3
    seed: int = 11
    with_end: bool = True
    with_tests: bool = True

    @property
    def days(self) -> int:
        return self.initial_days + self.increments


@dataclass
class World:
    """The steps of a fleet; `land` puts one into the lake."""

    size: WorldSize
    fleet: Fleet = field(init=False)
    _offsets: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    def __post_init__(self) -> None:
        self.fleet = Fleet(
            FleetConfig(
                seed=self.size.seed,
                collars=self.size.collars,
                households=max(3, self.size.collars - 2),
                clinics=3,
                days=self.size.days,
                start=START,
                documents=1.0,
                malformed=0.002,
                conflicts=0.002,
            ).model_copy(update=ORDINARY)
        )

    def steps(self) -> Iterator[Step]:
        """All steps in order."""
        extracts = self.fleet.record_extracts()
        waves = [self._wave(day) for day in range(self.size.days)]
        held_back = waves[0][::HELD_BACK_EVERY]
        waves[0] = [one for number, one in enumerate(waves[0]) if number % HELD_BACK_EVERY]
        first_at = self._end_of(self.size.initial_days - 1)
        known = [one for one in extracts if one.extracted_at <= first_at]
        yield Step(
            "initial",
            f"{self.size.initial_days} days",
            first_at,
            (*known, registry(known, 0, first_at)),
            tuple(message for wave in waves[: self.size.initial_days] for message in wave),
            is_tested=self.size.with_tests,
        )
        owners = [row["owner_id"] for row in rows_of(known, "owners")]
        for number in range(1, self.size.increments + 1):
            day = self.size.initial_days + number - 1
            at = self._end_of(day)
            arrival_ms = _ms(at - timedelta(hours=1))
            late = [
                Message(one.key, one.value, arrival_ms + place)
                for place, one in enumerate(held_back[number - 1 :: self.size.increments])
            ]
            again = list(repeated(waves[day - 1][::REPEATED_EVERY], arrival_ms))
            yield Step(
                f"increment {number}",
                "a day; late, repeated and contradicting events and records; a change of the past, a deletion",
                at,
                (
                    *(one for one in extracts if at - timedelta(days=1) < one.extracted_at <= at),
                    *awkward_extracts(known, number, at),
                    registry(known, number, at),
                ),
                (*waves[day], *late, *again),
                # Of the smallest fleet the last owner's past is changed here, and the first one agreed to nothing.
                erased_owner=None if self.size.with_end or number < self.size.increments else owners[1],
            )
        if not self.size.with_end:
            return
        last = self._end_of(self.size.days - 1)
        yield Step(
            "erasure",
            "a household is erased, with what its collars sent",
            last + timedelta(hours=6),
            erased_owner=owners[-1],
            is_tested=self.size.with_tests,
        )
        yield Step("time passes", "nothing", last + timedelta(days=2))

    def land(self, store: ObjectStore, step: Step) -> None:
        """Put what a step brings into the lake, by the collector's own code."""
        for one in step.extracts:
            land_extract(store, **one.arguments, claimed_at=step.at + timedelta(minutes=1))
        if step.messages:
            self._land_telemetry(store, step)
        if step.erased_owner is not None:
            request_erasure(
                store,
                step.erased_owner,
                "parity",
                step.at,
                ERASURE_DAYS,
                load_redactions(store),
                load_replacements(store),
                list_manifests(store),
            )

    def _land_telemetry(self, store: ObjectStore, step: Step) -> None:
        consent = build_consent_snapshot(store, step.at, AnalyticsDefault.ALLOW)
        decoder = DECODERS[COLLAR_DECODER]
        for partition in range(PARTITIONS):
            theirs = [one for one in step.messages if zlib.crc32(one.key) % PARTITIONS == partition]
            for part in np.array_split(np.arange(len(theirs)), RANGES_PER_DAY):
                batch = [theirs[place] for place in part]
                if not batch:
                    continue
                start = self._offsets[partition]
                self._offsets[partition] = start + len(batch)
                claim = claim_range(
                    store,
                    Claim(
                        stream_id=STREAM,
                        partition=partition,
                        start=start,
                        end=start + len(batch),
                        feed=TELEMETRY_FEED,
                        source_system=decoder.source_system,
                        decoder=decoder_label(decoder),
                        # The last day's late messages come after its step.
                        claimed_at=max(step.at + timedelta(minutes=5), received_at(batch)),
                        claimed_by="parity",
                        consent_snapshot_id=consent.snapshot_id,
                    ),
                )
                land_content(
                    store, claim, decode_messages(claim, [packed(batch, start)], consent, MAX_MESSAGE_BYTES)
                )

        seen = [
            PartitionSeen(stream_id=STREAM, partition=partition, end=self._offsets[partition], at=step.at)
            for partition in range(PARTITIONS)
        ]
        put_progress(store, ProgressMark(marked_at=step.at, marked_by="parity", partitions=seen))

    def _wave(self, day: int) -> list[Message]:
        return [
            Message(key, value, arrival_ms)
            for batch in self.fleet.telemetry_wave(day)
            for key, value, arrival_ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True)
        ]

    def _end_of(self, day: int) -> datetime:
        return self.fleet.config.start_ts + timedelta(days=day + 1)


def received_at(messages: Sequence[Message]) -> datetime:
    """When the last of some messages was received (naive UTC)."""
    return datetime(1970, 1, 1) + timedelta(milliseconds=max(one.arrival_ms for one in messages))


def packed(messages: Sequence[Message], start: int) -> Packed:
    """Messages as the collector holds them, from offset `start` on."""
    return Packed(
        np.arange(start, start + len(messages), dtype=np.int64),
        np.array([one.arrival_ms for one in messages], np.int64),
        pack([one.key for one in messages]),
        pack([one.value for one in messages]),
    )


def repeated(messages: Sequence[Message], arrival_ms: int) -> Iterator[Message]:
    """Messages that come again, every third of them with another count of steps."""
    for number, one in enumerate(messages):
        try:
            content = json.loads(one.value)
        except ValueError:  # One that was broken on purpose.
            continue
        if number % 3 == 0:
            content["step_count"] = content.get("step_count", 0) + 1
        value = json.dumps(content, separators=(",", ":")).encode() if number % 3 == 0 else one.value
        yield Message(one.key, value, arrival_ms + 30_000 + number)


def rows_of(extracts: Sequence[RecordExtract], feed: str) -> list[dict[str, Any]]:
    """The rows of the first extract of a feed."""
    return next(one for one in extracts if one.feed == feed).table.to_pylist()


def awkward_extracts(known: Sequence[RecordExtract], number: int, at: datetime) -> Iterator[RecordExtract]:
    """Records of every feed that come late, again, twice with other content, or take back what was said."""
    for feed in RECORD_FEED_NAMES:
        rows = rows_of(known, feed)
        source = next(one for one in known if one.feed == feed).source
        picked = [rows[(number * 5 + place) % len(rows)] for place in range(4)]
        text = next(name for name, value in rows[0].items() if name in CHANGED_COLUMNS[feed])
        awkward = [
            # Dated before what is known of it, received now.
            {
                **picked[0],
                text: CHANGED_COLUMNS[feed][text],
                "changed_at": picked[0]["changed_at"] + timedelta(minutes=1),
            },
            {**picked[1], "op": "delete", "changed_at": at - timedelta(hours=2)},
            # At one instant, with other content: the last in the order of changes wins.
            {**picked[2], "changed_at": at - timedelta(hours=3)},
            {**picked[2], text: CHANGED_COLUMNS[feed][text], "changed_at": at - timedelta(hours=3)},
        ]
        yield extract_of(source, feed, f"awkward-{number}", awkward, at)
        # As an extract that was sent twice: same content, times and source.
        first = next(one for one in known if one.feed == feed)
        yield RecordExtract(
            source=source,
            feed=feed,
            extract_id=f"again-{number}",
            table=records_table(feed, [picked[3]]),
            complete=False,
            extracted_at=first.extracted_at,
        )


# By feed a column that an awkward record changes, and to what; of several the first that the feed's rows have.
CHANGED_COLUMNS: dict[str, dict[str, Any]] = {
    "owners": {"district": "99"},
    "pets": {"breed": "unknown mix"},
    "devices": {"firmware_version": "9.9.9"},
    "clinics": {"district": "99"},
    "device_assignments": {"assigned_to": datetime(2026, 6, 3, 13, 20)},
    "clinic_visits": {"reason": "changed afterwards"},
    "appointments": {"status": "cancelled"},
    "breeds": {"breed_group": "other"},
    "visit_documents": {"ocr_engine": "engine-2"},
    "engagement": {"action": "called"},
}


def registry(known: Sequence[RecordExtract], number: int, at: datetime) -> RecordExtract:
    """A complete extract of another source: all owners but one, another one each time, and one that moved."""
    owners = rows_of(known, "owners")
    stated = [
        {
            **row,
            "op": "snapshot",
            "changed_at": at,
            "district": "77" if place == number else row.get("district"),
        }
        for place, row in enumerate(owners)
        if place != number + 1
    ]
    return RecordExtract(
        source="registry",
        feed="owners",
        extract_id=f"registry-{number}",
        table=records_table("owners", stated),
        complete=True,
        extracted_at=at,
    )


def extract_of(
    source: str, feed: str, extract_id: str, rows: Sequence[dict[str, Any]], at: datetime
) -> RecordExtract:
    """A partial extract of these rows."""
    key = RECORD_KEYS[feed]
    assert all(row[key] for row in rows)
    return RecordExtract(
        source=source,
        feed=feed,
        extract_id=extract_id,
        table=records_table(feed, rows),
        complete=False,
        extracted_at=at,
    )


def _ms(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)).total_seconds() * 1000)
