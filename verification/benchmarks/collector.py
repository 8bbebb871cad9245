"""What the collector reaches, on Apache Kafka: against a naive loop, against its own encoder, and in bounded memory.

In one run, over the same messages: a loop of `poll`, `json`, pydantic and Parquet (it
validates less, has no claims and loses its place in a crash); the collector with its
whole protocol into a local lake; and only encoding the collector's own tables to
Parquet, which bounds what any collector could reach. Each on one core with the broker
on the other, and on both cores with the broker. Backlogs of two sizes, each in a
process of its own, show whether memory follows settings or backlog. Rates are by wall
clock; CPU time of the process bears a busy machine better.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from verification.benchmarks.messages import generate

TOPIC = "telemetry"
PARTITIONS = 4
# Different messages; a longer backlog repeats them.
DISTINCT = 300_000
# Ten seconds of the collector and of the naive loop, about.
MESSAGES = 2_000_000
NAIVE_MESSAGES = 300_000
PEERS_TOPIC = "telemetry-peers"
PEERS_MESSAGES = 1_000_000
# The smaller backlog is twice what may be held at once, so that both fill what they may.
BACKLOGS = (1_500_000, 15_000_000)
ROUNDS = 3
NAIVE_BATCH = 10_000


def naive(client: Any, expected: int) -> tuple[int, int]:
    """Poll, validate with pydantic, write Parquet in batches: the loop one writes first."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pydantic import BaseModel

    class Event(BaseModel):
        device_id: str
        event_ts: datetime
        event_id: str
        accel_x_g: float | None = None
        accel_y_g: float | None = None
        accel_z_g: float | None = None
        step_count: int | None = None
        lick_count: int | None = None
        gps_lat: float | None = None
        gps_long: float | None = None
        battery_pct: float | None = None
        pulse_bpm: float | None = None
        body_temp_c: float | None = None
        firmware_version: str | None = None
        capture_clinic_id: str | None = None
        schema_version: int | None = None

    consumer = client.consumer()
    consumer.subscribe(["telemetry"])
    rows: list[dict[str, Any]] = []
    seen = size = 0
    while seen < expected:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        event = Event(**json.loads(message.value())).model_dump()
        event |= {
            "kafka_partition": message.partition(),
            "kafka_offset": message.offset(),
            "arrival_ms": message.timestamp()[1],
            "payload": message.value().decode(),
        }
        rows.append(event)
        seen += 1
        size += len(message.value())
        if len(rows) == NAIVE_BATCH or seen == expected:
            pq.write_table(pa.Table.from_pylist(rows), io.BytesIO(), compression="zstd")
            rows = []
    consumer.close()
    return seen, size


@dataclass(frozen=True)
class Measured:
    """Messages, their bytes, seconds by the wall and of the process's CPU."""

    messages: int
    message_bytes: int
    wall_s: float
    cpu_s: float

    @property
    def figures(self) -> dict[str, float]:
        """Events and megabytes per second, and CPU per event."""
        return {
            "events_per_s": round(self.messages / self.wall_s),
            "mb_per_s": round(self.message_bytes / self.wall_s / 1e6, 1),
            "cpu_us_per_event": round(self.cpu_s / self.messages * 1e6, 2),
        }


def timed(work: Callable[[], tuple[int, int]]) -> Measured:
    """Run something that says how many messages and bytes it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    messages, message_bytes = work()
    return Measured(messages, message_bytes, time.perf_counter() - wall, time.process_time() - cpu)


def produce(client: Any, topic: str, count: int, distinct: int = DISTINCT) -> None:
    """Put generated messages into a topic, in turn over its partitions; after `distinct` they repeat."""
    values, arrivals = generate(min(count, distinct))
    producer = client.producer(**{"compression.type": "lz4"})
    for number in range(count):
        at = number % len(values)
        while True:
            try:
                producer.produce(
                    topic, values[at], b"collar-00001", number % PARTITIONS, timestamp=arrivals[at]
                )
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(60):
        raise RuntimeError("the broker did not take all messages")


def collect(servers: str, lake: Path, group: str) -> tuple[int, int]:
    """The collector with its whole protocol into a local lake, under its default settings."""
    from contracts.consent import AnalyticsDefault
    from ingestion.broker.client import connect
    from ingestion.collector.consent import build_consent_snapshot
    from ingestion.collector.engine import Collector
    from ingestion.settings import BrokerSettings, CollectorSettings
    from lake.landing import utc_now
    from lake.store import LocalStore

    store = LocalStore(lake)
    build_consent_snapshot(store, utc_now(), AnalyticsDefault.ALLOW)
    client = connect(BrokerSettings(bootstrap_servers=servers, group_id=group), lake)
    report = Collector(client, store, CollectorSettings(), [TOPIC]).drain()
    return report.rows, report.bytes


def landed_tables(lake: Path) -> list[Any]:
    """The collector's own files, read back as the tables that were encoded."""
    import pyarrow.parquet as pq

    return [pq.read_table(path) for path in sorted((lake / "landing").rglob("*.parquet"))]


def encode(tables: list[Any]) -> tuple[int, int]:
    """Only the last step of the collector: tables to Parquet as it writes it."""
    from lake.landing import parquet_bytes

    for table in tables:
        parquet_bytes(table)
    rows = sum(table.num_rows for table in tables)
    return rows, sum(table["payload"].nbytes for table in tables)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this process, and what it starts, on one core; None leaves all of them."""
    before = os.sched_getaffinity(0)
    if core is not None:
        keep_on_core(os.getpid(), {core})
    try:
        yield
    finally:
        keep_on_core(os.getpid(), before)


def keep_on_core(pid: int, cores: set[int]) -> None:
    """Keep all threads of a process, and what they start, on some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _child(work: Callable[..., tuple[int, int]], arguments: tuple[Any, ...], answers: Any) -> None:
    from contracts.memory import peak_memory_bytes

    measured = timed(lambda: work(*arguments))
    answers.send((measured, peak_memory_bytes()))


def in_own_process(work: Callable[..., tuple[int, int]], *arguments: Any) -> tuple[Measured, int]:
    """Run something in a fresh process: what it took, and the most memory it had, in bytes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}") from None
    finally:
        process.join()


def compared(kafka: Any, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Naive loop, collector and encoder in turns; medians of the rounds."""
    from ingestion.broker.client import connect
    from ingestion.settings import BrokerSettings

    servers = kafka.bootstrap_servers
    cores = sorted(os.sched_getaffinity(0))
    figures: dict[str, Any] = {}
    for place, core in (("broker on the same cores", None), ("one core, broker on the other", cores[0])):
        keep_on_core(kafka.running().pid, set(cores) if core is None else {cores[-1]})
        found: dict[str, list[Measured]] = {"naive loop": [], "collector": [], "encoder alone": []}
        with on_core(core):
            for number in range(ROUNDS + 1):
                group, lake = f"{place[:3]}-{number}", folder / f"lake-{place[:3]}-{number}"
                client = connect(BrokerSettings(bootstrap_servers=servers, group_id=f"naive-{group}"), folder)
                measured = {
                    "naive loop": timed(lambda client=client: naive(client, NAIVE_MESSAGES)),
                    "collector": timed(lambda lake=lake, group=group: collect(servers, lake, group)),
                }
                tables = landed_tables(lake)
                measured["encoder alone"] = timed(lambda tables=tables: encode(tables))
                # The first round warms up imports, compiled code and the broker.
                if number:
                    for name, one in measured.items():
                        found[name].append(one)
                    say(
                        f"{place}: "
                        + ", ".join(f"{n} {m.figures['events_per_s']:,}/s" for n, m in measured.items())
                    )
        median = {name: _median(rounds) for name, rounds in found.items()}
        figures[place] = {
            **{name: one.figures for name, one in median.items()},
            "times_naive": _ratio(median["collector"], median["naive loop"]),
            "times_naive_by_cpu": _ratio(median["collector"], median["naive loop"], by_cpu=True),
            "share_of_encoder": _ratio(median["collector"], median["encoder alone"]),
            "share_of_encoder_by_cpu": _ratio(median["collector"], median["encoder alone"], by_cpu=True),
        }
    keep_on_core(kafka.running().pid, set(cores))
    return figures


def _median(rounds: list[Measured]) -> Measured:
    wall = statistics.median(one.wall_s for one in rounds)
    cpu = statistics.median(one.cpu_s for one in rounds)
    return Measured(rounds[0].messages, rounds[0].message_bytes, wall, cpu)


def _ratio(one: Measured, other: Measured, by_cpu: bool = False) -> float:
    """How many times as many events per second `one` takes as `other`."""
    if by_cpu:
        return round((other.cpu_s / other.messages) / (one.cpu_s / one.messages), 2)
    return round((one.messages / one.wall_s) / (other.messages / other.wall_s), 2)


def memory(kafka: Any, folder: Path, say: Callable[[str], None], backlogs: tuple[int, int]) -> dict[str, Any]:
    """Peak memory of a collector that finds a backlog, and of one that finds ten times as much."""
    from ingestion.broker.client import connect
    from ingestion.settings import BrokerSettings

    client = connect(BrokerSettings(bootstrap_servers=kafka.bootstrap_servers), folder)
    peaks, rates = [], []
    for backlog in backlogs:
        kafka.delete_topic(TOPIC)
        kafka.create_topic(TOPIC, PARTITIONS)
        produce(client, TOPIC, backlog)
        measured, peak = in_own_process(
            collect, kafka.bootstrap_servers, folder / f"lake-{backlog}", f"backlog-{backlog}"
        )
        if measured.messages != backlog:
            raise AssertionError(f"{measured.messages} of {backlog} messages came through")
        peaks.append(peak)
        rates.append(measured.figures["events_per_s"])
        say(f"backlog of {backlog:,}: {rates[-1]:,} events/s, {peak / 1e6:,.0f} MB at most")
    return {
        "backlog_messages": backlogs[0],
        "backlog_peak_bytes": peaks[0],
        "tenfold_peak_bytes": peaks[1],
        "tenfold_events_per_s": rates[1],
        "peak_ratio": round(peaks[1] / peaks[0], 3),
    }


def peers(kafka: Any, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Other programs that read such a topic into Parquet, each with its best documented settings."""
    from ingestion.broker.client import connect
    from ingestion.settings import BrokerSettings
    from verification.benchmarks.peers import measure

    kafka.create_topic(PEERS_TOPIC, PARTITIONS)
    client = connect(BrokerSettings(bootstrap_servers=kafka.bootstrap_servers), folder)
    # Their rows are counted by event, so none may repeat.
    produce(client, PEERS_TOPIC, PEERS_MESSAGES, distinct=PEERS_MESSAGES)
    outcomes = measure(kafka.bootstrap_servers, PEERS_MESSAGES, topic=PEERS_TOPIC, say=say)
    kafka.delete_topic(PEERS_TOPIC)
    return {one.peer: {k: v for k, v in asdict(one).items() if k != "peer"} for one in outcomes}


def run(
    say: Callable[[str], None] = lambda line: None, backlogs: tuple[int, int] = BACKLOGS
) -> dict[str, Any]:
    """All figures. Raises KafkaUnavailableError without Java or Maven."""
    from infrastructure.kafka.local import LocalKafka
    from ingestion.broker.client import connect
    from ingestion.settings import BrokerSettings

    with tempfile.TemporaryDirectory(prefix="petwellness-bench-") as name:
        folder = Path(name)
        with LocalKafka(folder / "kafka", heap_mb=1024) as kafka:
            kafka.create_topic(TOPIC, PARTITIONS)
            client = connect(BrokerSettings(bootstrap_servers=kafka.bootstrap_servers), folder)
            say(f"producing {MESSAGES:,} messages ...")
            produce(client, TOPIC, MESSAGES)
            figures = compared(kafka, folder, say)
            side_by_side = peers(kafka, folder, say)
            bounded = memory(kafka, folder, say, backlogs)
    both, alone = figures["broker on the same cores"], figures["one core, broker on the other"]
    return {
        "messages": MESSAGES,
        "message_bytes": round(sum(map(len, generate(1000)[0])) / 1000),
        "times_naive": both["times_naive"],
        "share_of_encoder": alone["share_of_encoder"],
        "memory_ratio": bounded["peak_ratio"],
        **figures,
        "memory": bounded,
        "peers": side_by_side,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the figures beside those of the other benchmarks."""
    from verification.benchmarks import machine, report
    from verification.benchmarks.report import RESULTS, say

    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.collector", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="backlogs a tenth as large for the memory figure"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    options = parser.parse_args(arguments)
    backlogs = (BACKLOGS[0] // 10, BACKLOGS[1] // 10) if options.quick else BACKLOGS
    section = machine.section(lambda: run(say, backlogs))
    document = report.merged(report.read(options.output), machine.describe(), {"collector": section})
    report.write(options.output, document)
    print("\n".join(report.lines({**document, "benchmarks": {"collector": section}})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
