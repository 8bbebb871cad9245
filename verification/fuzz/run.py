"""A run over generated messages in batches: decode, compare with the reference, check what was accepted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts import telemetry
from contracts.decoders import DECODERS
from ingestion.collector.decode import decode_contract_json, decode_vendor
from verification.fuzz import tokens
from verification.fuzz.comparison import EPOCH, Ints, Tally, disagreements, judge, unloadable
from verification.fuzz.mutation import DocumentMutator, Mutator

BATCH = 10_000
# After this share of a run the interpreter, caches and pools have their size.
WARM = 0.2
MAX_SHOWN = 50


@dataclass
class FuzzReport:
    """What came of one decoder's messages; memory is resident, in MiB."""

    decoder: str
    seed: int
    tally: Tally = field(default_factory=Tally)
    disagreements: list[str] = field(default_factory=list)
    compared: int = 0
    seconds: float = 0.0
    warm_mib: float = 0.0
    last_mib: float = 0.0

    @property
    def grown_mib(self) -> float:
        """Growth of memory from when the run was warm to its end."""
        return self.last_mib - self.warm_mib

    def document(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "decoder": self.decoder,
            "seed": self.seed,
            "messages": self.tally.messages,
            "rows": self.tally.rows,
            "rejects": self.tally.by_reason.total(),
            "rejects_by_reason": dict(sorted(self.tally.by_reason.items())),
            "adds_up": self.tally.adds_up,
            "compared": self.compared,
            "disagreements": len(self.disagreements),
            "first_disagreements": self.disagreements[:MAX_SHOWN],
            "seconds": round(self.seconds, 1),
            "memory_grown_mib": round(self.grown_mib, 1),
        }


def run(
    decoder: str,
    messages: int,
    seed: int,
    compare_every: int = 1,
    batch: int = BATCH,
    progress: Callable[[FuzzReport], None] = lambda _: None,
) -> FuzzReport:
    """Decode `messages` of a decoder's kind; every `compare_every`-th batch is held against the reference.

    Raises KeyError for an unknown decoder, and whatever a decoder raises: nothing may.
    """
    mutator = (
        Mutator(seed) if decoder == telemetry.COLLAR_DECODER else DocumentMutator(seed, EXAMPLES[decoder])
    )
    rng = np.random.default_rng(seed)
    parse = None if decoder == telemetry.COLLAR_DECODER else DECODERS[decoder].decode
    report = FuzzReport(decoder, seed)
    started = time.monotonic()
    for number, size in enumerate(_sizes(messages, batch)):
        payloads = mutator.messages(size)
        arrival_us, believed = _arrivals(decoder, size, rng), _believed(decoder)
        decoded = (
            decode_contract_json(payloads, arrival_us, believed)
            if parse is None
            else decode_vendor(payloads, arrival_us, believed, parse)
        )
        report.tally.add(size, decoded)
        decoded.table.validate(full=True)
        report.disagreements += [f"not JSON to the warehouse: {text!r}" for text in unloadable(decoded.table)]
        if number % compare_every == 0:
            report.disagreements += disagreements(
                payloads, decoded, judge(payloads, arrival_us, believed, parse)
            )
            report.compared += size
        del decoded
        report.last_mib = _resident_mib()
        if report.tally.messages <= messages * WARM or not report.warm_mib:
            report.warm_mib = max(report.warm_mib, report.last_mib)
        report.seconds = time.monotonic() - started
        progress(report)
    return report


def _sizes(messages: int, batch: int) -> Iterable[int]:
    whole, rest = divmod(messages, batch)
    return [batch] * whole + ([rest] if rest else [])


# When the messages of a vendor's decoder were received, about, in epoch microseconds.
RECEIVED_US = {"campusiot-v1": 1_630_589_951_755_000, "movebank-v1": 1_498_266_237_000_000}


def _believed(decoder: str) -> telemetry.ReceiptBounds:
    """Receipts from a day before the messages' own to the age that they may have."""
    received = EPOCH + timedelta(microseconds=RECEIVED_US.get(decoder, tokens.ARRIVAL_US))
    return telemetry.ReceiptBounds(received - telemetry.MAX_AHEAD, received + telemetry.MAX_AGE)


def _arrivals(decoder: str, count: int, rng: np.random.Generator) -> Ints:
    """Times of receipt around which the messages' own are on time, at the edge or off, or not to be believed."""
    oldest, ahead = (limit // timedelta(microseconds=1) for limit in (telemetry.MAX_AGE, telemetry.MAX_AHEAD))
    edges = [*[0] * 20, 1, -1, oldest, oldest + 1, -ahead, -ahead - 1]
    return RECEIVED_US.get(decoder, tokens.ARRIVAL_US) + rng.choice(np.array(edges, np.int64), count)


def _resident_mib() -> float:
    pa.default_memory_pool().release_unused()
    statm = Path("/proc/self/statm")
    if not statm.exists():  # Not Linux: the peak is what there is.
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "campusiot-v1": [
        {
            "name": "FTD_1",
            "dev_eui": "0018B20000000001",
            "devaddr": "D2010048",
            "fcnt": 5,
            "port": 1,
            "hotspots": [{"hold_time": 307, "reported_at": 1630589951278}],
            "reported_at": 1630589951278,
            "_timestamp": 1630589951755,
            "decoded": {
                "payload": {
                    "batteryVoltage": 4087,
                    "latitude": 45.19500732421875,
                    "longitude": 5.7183837890625,
                    "quality": 1,
                    "temperature": 34,
                }
            },
        },
        {
            "dev_eui": "0018B20000000002",
            "devaddr": "D2010049",
            "fcnt": 0,
            "port": 2,
            "reported_at": 1630589951278,
            "decoded": {"payload": {"latitude": None, "longitude": None}},
        },
    ],
    "movebank-v1": [
        {
            "tag_id": "Tom-Tag",
            "event_id": "3395610551",
            "timestamp": "2017-06-24 01:03:57",
            "location_long": "-5.113851",
            "location_lat": "50.170315",
            "algorithm_marked_outlier": "FALSE",
            "manually_marked_outlier": "",
        },
        {
            "tag_id": "Zo\u00eb",
            "event_id": "1",
            "timestamp": "2017-06-24 01:03:57.123",
            "location_long": "",
            "location_lat": None,
            "algorithm_marked_outlier": "TRUE",
            "manually_marked_outlier": "FALSE",
        },
    ],
}
