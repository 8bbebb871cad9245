"""A lake with rejected messages of a made-up vendor, whose decoder gets better from version to version."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.decoders import DECODERS, Decoder
from contracts.telemetry import NOT_BEFORE, RejectError, check_text, validate_event
from ingestion.collector.consent import ConsentSnapshot, OptOut, load_latest_snapshot
from ingestion.collector.messages import Packed, pack
from ingestion.collector.ranges import decode_messages, decoder_label, land_content
from ingestion.rejects.reading import RejectFilter
from ingestion.rejects.replay import ReplayReport, replay_rejects
from lake import layout
from lake.landing import (
    Claim,
    Manifest,
    claim_range,
    list_claims,
    list_manifests,
    utc_now,
    verify_chain,
    verify_law,
)
from lake.store import LocalStore, ObjectStore

NAME, SOURCE, TOPIC = "lab-v1", "lab", "telemetry.lab"
STREAM = "cluster.telemetry.lab.topic1"
START = datetime(2026, 6, 1)
EPOCH = datetime(1970, 1, 1)
MAX_AGE_S = 3600.0


def decoder(version: int) -> Decoder:
    """Takes a message if its own `needs` is at most the decoder's version."""

    def decode(payload: bytes) -> dict[str, Any]:
        try:
            message = json.loads(check_text(payload))
        except ValueError:
            raise RejectError("malformed", "not one JSON document") from None
        if message["needs"] > version:
            raise RejectError("version", "made for a newer decoder")
        return validate_event(
            {
                "device_id": message["device"],
                "event_id": message["id"],
                "event_ts": EPOCH + _ms(message["at"]),
            }
        )

    return Decoder(NAME, str(version), SOURCE, TOPIC, decode)


def _ms(millis: int) -> timedelta:
    return timedelta(milliseconds=millis)


def received_ms(number: int) -> int:
    return int((START + timedelta(minutes=number, seconds=2) - EPOCH).total_seconds() * 1000)


def message(number: int, needs: int = 1, device: str | None = None) -> bytes:
    """Message `number`, which decoders from version `needs` on take."""
    at = received_ms(number) - 2000
    return json.dumps(
        {"id": f"e-{number}", "at": at, "device": device or f"d-{number % 3}", "needs": needs}
    ).encode()


@dataclass
class Lab:
    """One lake and the decoder version in force."""

    store: LocalStore
    release: Callable[[int], None]
    home: Path
    sent: dict[tuple[int, int], bytes] = field(default_factory=dict)

    message = staticmethod(message)
    stream, source, start, decoder_name = STREAM, SOURCE, START, NAME

    def land(
        self,
        payloads: Sequence[bytes],
        partition: int = 0,
        name: str = NAME,
        claimed_at: datetime | None = None,
    ) -> Manifest:
        """Land messages as the next range of a partition, by the decoder in force."""
        start = max((offset + 1 for place, offset in self.sent if place == partition), default=0)
        consent = load_latest_snapshot(self.store, utc_now(), MAX_AGE_S)
        claim = Claim(
            stream_id=STREAM,
            partition=partition,
            start=start,
            end=start + len(payloads),
            feed="telemetry_events",
            source_system=DECODERS[name].source_system,
            decoder=decoder_label(DECODERS[name]),
            claimed_at=claimed_at or utc_now(),
            claimed_by="test",
            consent_snapshot_id=consent.snapshot_id,
        )
        offsets = [*range(start, claim.end)]
        self.sent |= {(partition, offset): body for offset, body in zip(offsets, payloads, strict=True)}
        messages = Packed(
            np.array(offsets),
            np.array([*map(received_ms, offsets)]),
            pack([b""] * len(offsets)),
            pack(payloads),
        )
        content = decode_messages(claim_range(self.store, claim), [messages], consent, 65536)
        return land_content(self.store, claim, content)

    def another(self, name: str) -> "Lab":
        """A lake of its own beside this one, without consent snapshot, under the same decoder."""
        return Lab(LocalStore(self.home / name), self.release, self.home)

    def opt_out(self, *opted_out: OptOut, name: str) -> None:
        """Put a consent snapshot in force; later names come later."""
        snapshot = ConsentSnapshot(name, utc_now(), [*opted_out])
        self.store.put_new(layout.consent_key(name), msgspec.json.encode(snapshot))

    def replay(
        self,
        store: ObjectStore | None = None,
        dry_run: bool = False,
        not_before: datetime = NOT_BEFORE,
        **where: Any,
    ) -> ReplayReport:
        return replay_rejects(
            store or self.store,
            RejectFilter(**where),
            consent_max_age_s=MAX_AGE_S,
            max_message_bytes=65536,
            not_before=not_before,
            dry_run=dry_run,
        )

    def rows(self) -> pa.Table:
        """Every landed row; checks that claims are finished and contiguous, and the law of each range."""
        claims, manifests = list_claims(self.store), list_manifests(self.store)
        verify_chain(claims)
        assert sorted(c.range_key for c in claims) == sorted(m.range_key for m in manifests)
        tables = []
        for manifest in manifests:
            verify_law(manifest)
            table = pq.read_table(pa.BufferReader(self.store.get(manifest.source_file)))
            assert table.num_rows == manifest.rows
            tables.append(table)
        mains = [info.key for info in self.store.list(layout.LANDING)]
        assert sorted(m.source_file for m in manifests) == sorted(mains)
        rows = pa.concat_tables(tables)
        keys = rows.select(["stream_id", "kafka_partition", "kafka_offset"]).to_pylist()
        assert len({tuple(key.values()) for key in keys}) == len(keys)
        return rows

    def payloads(self) -> list[str]:
        """Payloads of all landed rows, sorted."""
        return sorted(self.rows()["payload"].to_pylist())

    def all_up_to(self, version: int) -> list[str]:
        """What was sent and is good for a decoder version, sorted."""
        bodies = (body for body in self.sent.values() if body.startswith(b'{"'))
        return sorted(body.decode() for body in bodies if json.loads(body)["needs"] <= version)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lake in which nobody opted out, and version 1 of the decoder."""

    def release(version: int) -> None:
        monkeypatch.setitem(DECODERS, NAME, decoder(version))

    release(1)
    made = Lab(LocalStore(tmp_path / "lake"), release, tmp_path)
    made.opt_out(name="s-0")
    return made
