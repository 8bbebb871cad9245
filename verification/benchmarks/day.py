"""A simulated day of a fleet, whole: produced into Apache Kafka, collected and compacted, in hourly waves.

Each stage is a process of its own, so that its memory is its own: one makes and
produces an hour's messages, one collects them; then the broker forgets them, as
retention would. After the last hour the day's files are compacted. The stages take
turns, so seconds of a stage are its alone (with the broker beside it).
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

TOPIC = "telemetry"
PARTITIONS = 8
START = date(2026, 6, 1)
HOUR_MS = 3_600_000
# Households and clinics of a fleet of this size: five pets in four households, 1,250 collars to a clinic.
COLLARS_PER_HOUSEHOLD = 1.22
COLLARS_PER_CLINIC = 1_250
# Only whole segments leave the disk.
SEGMENT_BYTES = 64 * 1024 * 1024
END_OF_LOG = -1
MIN_FREE_BYTES = 30 * 10**9


def produce_hours(servers: str, folder: str, devices: int, hours: int) -> Iterator[dict[str, float]]:
    """Put one hour after the other into the topic; for each: messages and bytes."""
    from ingestion.broker.client import connect
    from ingestion.settings import BrokerSettings
    from simulation import Fleet, FleetConfig
    from simulation.config import ORDINARY

    fleet = Fleet(
        FleetConfig(
            collars=devices,
            households=max(1, round(devices / COLLARS_PER_HOUSEHOLD)),
            clinics=min(999, max(1, devices // COLLARS_PER_CLINIC)),
            days=1,
            start=START,
        ).model_copy(update=ORDINARY)
    )
    wave = fleet.telemetry_wave(0)
    yield {}
    client = connect(BrokerSettings(bootstrap_servers=servers), Path(folder))
    producer = client.producer(**{"compression.type": "lz4"})
    first = groupby(wave, key=lambda batch: batch.arrival_ts_ms[0] // HOUR_MS)
    for _, (_, batches) in zip(range(hours), first, strict=False):
        messages = size = 0
        for batch in batches:
            for key, value, arrival_ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True):
                while True:
                    try:
                        producer.produce(TOPIC, value, key, timestamp=arrival_ms)
                        break
                    except BufferError:
                        producer.poll(0.05)
                size += len(value) if value else 0
            messages += len(batch)
            producer.poll(0)
        if producer.flush(120):
            raise RuntimeError("the broker did not take all messages")
        yield {"messages": messages, "bytes": size}


def collect_hours(servers: str, folder: str, hours: int) -> Iterator[dict[str, float]]:
    """Drain the topic once per hour; for each: what the collector reports."""
    from contracts.consent import AnalyticsDefault
    from ingestion.broker.client import connect
    from ingestion.collector.consent import build_consent_snapshot
    from ingestion.collector.engine import Collector
    from ingestion.settings import BrokerSettings, CollectorSettings
    from lake.landing import utc_now
    from lake.store import LocalStore

    store = LocalStore(Path(folder) / "lake")
    build_consent_snapshot(store, utc_now(), AnalyticsDefault.ALLOW)
    yield {}
    for _ in range(hours):
        client = connect(BrokerSettings(bootstrap_servers=servers), Path(folder))
        report = Collector(client, store, CollectorSettings(), [TOPIC]).drain()
        yield {
            "messages": report.messages,
            "rows": report.rows,
            "rejected": sum(report.rejected_by_reason.values()),
            "files": report.files,
            "file_bytes": report.file_bytes,
        }


def compact(folder: str) -> Iterator[dict[str, float]]:
    """Compact every arrival day of the lake: rows, files and bytes afterwards."""
    from lake.compaction import compact_day
    from lake.landing import list_manifests
    from lake.settings import CompactionSettings
    from lake.store import LocalStore

    store = LocalStore(Path(folder) / "lake")
    yield {}
    totals: Counter[str] = Counter()
    for day in sorted({manifest.ingested_at.date() for manifest in list_manifests(store)}):
        done = compact_day(store, day, CompactionSettings(), Path(folder) / "scratch", even_if_open=True)
        if done.snapshot is None:
            raise RuntimeError(f"nothing of {day} was compacted")
        files = done.snapshot.files
        totals.update(
            rows=sum(file.rows for file in files),
            files=len(files),
            file_bytes=sum(file.bytes for file in files),
        )
    yield dict(totals)


def _stage(work: Callable[..., Iterator[dict[str, float]]], arguments: tuple[Any, ...], line: Any) -> None:
    from contracts.memory import peak_memory_bytes

    steps = work(*arguments)
    while line.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        found = next(steps)
        line.send((found, time.perf_counter() - wall, time.process_time() - cpu, peak_memory_bytes()))


class Stage:
    """A process that does one step each time it is told to, and how long that took in all."""

    def __init__(self, work: Callable[..., Iterator[dict[str, float]]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_stage, args=(work, arguments, theirs))
        self._process.start()
        theirs.close()
        self.name = work.__name__
        self.totals: Counter[str] = Counter()
        self.seconds = self.cpu_s = 0.0
        self.peak_bytes = 0
        # The first step only gets ready.
        self.step()
        self.start_s, self.seconds, self.cpu_s = self.seconds, 0.0, 0.0

    def step(self) -> dict[str, float]:
        """One more step; what it found. Raises RuntimeError if the process has ended."""
        self._line.send(True)
        try:
            found, seconds, cpu_s, self.peak_bytes = self._line.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name} ended with exit code {self._process.exitcode}") from None
        self.totals.update(found)
        self.seconds += seconds
        self.cpu_s += cpu_s
        return found

    def end(self) -> None:
        """Let the process go."""
        self._line.send(False)
        self._process.join()

    @property
    def figures(self) -> dict[str, float]:
        """Seconds by the wall and of the process's CPU, memory and rate."""
        done = self.totals["messages"] or self.totals["rows"]
        return {
            "start_s": round(self.start_s, 1),
            "seconds": round(self.seconds, 1),
            "cpu_us_per_event": round(self.cpu_s / done * 1e6, 2),
            "peak_bytes": self.peak_bytes,
            "events_per_s": round(done / self.seconds),
        }


def run(devices: int, hours: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The day's figures by stage. Raises KafkaUnavailableError without Java or Maven."""
    from infrastructure.kafka.local import LocalKafka
    from lake.store import LocalStore
    from verification.benchmarks.compaction import lookup

    began = time.perf_counter()
    with LocalKafka(folder / "kafka", heap_mb=1024) as kafka:
        kafka.create_topic(TOPIC, PARTITIONS, {"segment.bytes": str(SEGMENT_BYTES)})
        servers = kafka.bootstrap_servers
        say(f"a fleet of {devices:,} collars is made ...")
        producing = Stage(produce_hours, servers, str(folder), devices, hours)
        collecting = Stage(collect_hours, servers, str(folder), hours)
        for hour in range(hours):
            produced = producing.step()
            collected = collecting.step()
            if produced["messages"] != collected["messages"]:
                raise RuntimeError(
                    f"{produced['messages']} messages went in, {collected['messages']} came out"
                )
            for partition in range(PARTITIONS):
                kafka.delete_records(TOPIC, partition, END_OF_LOG)
            say(
                f"hour {hour}: {produced['messages']:,.0f} messages; so far produced in {producing.seconds:,.0f} s,"
                f" collected in {collecting.seconds:,.0f} s, {collecting.totals['files']:,.0f} files"
            )
        producing.end()
        collecting.end()
    store = LocalStore(folder / "lake")
    landed_lookup_s = lookup(store)
    say("compacting ...")
    compacting = Stage(compact, str(folder))
    compacting.step()
    compacting.end()
    rows = collecting.totals["rows"]
    if compacting.totals["rows"] != rows:
        raise RuntimeError(f"{rows} rows landed, {compacting.totals['rows']} after compaction")
    objects = Counter(info.key.partition("/")[0] for info in store.list(""))
    return {
        "devices": devices,
        "hours": hours,
        "messages": producing.totals["messages"],
        "message_bytes": producing.totals["bytes"],
        "rows": rows,
        "rejected": collecting.totals["rejected"],
        "produce": producing.figures,
        "collect": collecting.figures,
        "compact": compacting.figures,
        "landing_files": collecting.totals["files"],
        "compacted_files": compacting.totals["files"],
        "objects": sum(objects.values()),
        "objects_by_prefix": dict(sorted(objects.items())),
        "landing_bytes_per_row": round(collecting.totals["file_bytes"] / rows, 1),
        "compacted_bytes_per_row": round(compacting.totals["file_bytes"] / rows, 1),
        "device_day_before_s": landed_lookup_s,
        "device_day_after_s": lookup(store),
        "total_s": round(time.perf_counter() - began, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run a day and write its figures beside those of the other benchmarks."""
    import shutil
    import tempfile

    from verification.benchmarks import machine, report
    from verification.benchmarks.report import RESULTS, say

    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.day", description=__doc__)
    parser.add_argument("--devices", type=int, default=50_000, help="collars (default: %(default)s)")
    parser.add_argument("--hours", type=int, default=24, choices=range(1, 25), metavar="1-24")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    options = parser.parse_args(arguments)
    needed = MIN_FREE_BYTES * options.devices * options.hours // (50_000 * 24)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        say(
            f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB free, {needed / 1e9:.0f} are needed; set TMPDIR"
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="petwellness-day-") as folder:
        section = machine.section(lambda: run(options.devices, options.hours, Path(folder), say))
    document = report.merged(report.read(options.output), machine.describe(), {"day": section})
    report.write(options.output, document)
    print("\n".join(report.lines({**document, "benchmarks": {"day": section}})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
