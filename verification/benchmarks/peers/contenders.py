"""The peers: what each one is, how it is configured, how it is started.

One function per peer. Each takes a `Job` and returns what came of it; it raises
NotInstalledError or PeerFailedError. The configurations are the ones their
documentation recommends for throughput, with zstd like the collector.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from verification.benchmarks.peers.figures import Figures
from verification.benchmarks.peers.installs import (
    NotInstalledError,
    go_program,
    maven_jars,
    python_environment,
)
from verification.benchmarks.peers.verify import FIELDS, PAYLOAD, RowCount, contents, parquet_files
from verification.benchmarks.peers.watch import Launch, PeerFailedError, tail, watch

HERE = Path(__file__).parent
QUIXSTREAMS = "3.28.1"
PYARROW = "26.0.1"
CONFLUENT_KAFKA = "2.16.1"
POLARS = "2.1.0"
DUCKDB = "2.0.0"
BATCH_ROWS = 100_000
PARTITION_BATCH_ROWS = 10_000
JVM_HEAP = "1g"
COMMIT_MS = 2_000
ADMIN_S = 30


@dataclass(frozen=True)
class Job:
    """What a peer has to do: the whole of a topic, as a new group, into `output` below its own folder."""

    bootstrap: str
    topic: str
    messages: int
    group: str
    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def told(self, **more: object) -> str:
        """The job as a driver of ours reads it."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "folder"} | more)


Peer = Callable[[Job], Figures]


def quixstreams(job: Job) -> Figures:
    """Quix Streams with its local file sink."""
    python = python_environment("quixstreams", [f"quixstreams=={QUIXSTREAMS}", f"pyarrow=={PYARROW}"])
    launch = Launch(
        command=[str(python), str(HERE / "drivers" / "quix.py"), job.told(commit_every=BATCH_ROWS)],
        ready="^reads now$",
        rows=RowCount(job.output),
        ends_itself=True,
    )
    return _measured(
        job,
        launch,
        peer="Quix Streams",
        version=QUIXSTREAMS,
        configuration=f"one process, orjson, checkpoint each {BATCH_ROWS:,} messages, a file per partition, zstd",
        remarks="column types are inferred per file; its sink is at least once",
    )


def benthos(job: Job) -> Figures:
    """Benthos with its Franz input, a thread per core, Parquet encoder and file output."""
    program = go_program("benthos", HERE / "benthos")
    config = job.folder / "benthos.json"
    config.write_text(json.dumps(benthos_config(job), indent=2))
    launch = Launch(
        command=[str(program), "-c", str(config)],
        ready="Input type kafka_franz is now active",
        rows=RowCount(job.output),
        ends_itself=False,
    )
    return _measured(
        job,
        launch,
        peer="Benthos",
        version=_stated(HERE / "benthos" / "go.mod", r"benthos/v4 v(\S+)"),
        configuration=f"kafka_franz, batches of {PARTITION_BATCH_ROWS:,} per partition, a thread per core, zstd",
        remarks="the last release under this name; Redpanda Connect grew out of it; at least once",
    )


def benthos_config(job: Job) -> dict[str, object]:
    """Its configuration: no listener, fields by an explicit schema, the raw message beside them."""
    kinds = {"text": "UTF8", "timestamp": "UTF8", "real": "DOUBLE", "whole": "INT64"}
    columns = FIELDS | {PAYLOAD: "text"}
    schema = [{"name": name, "type": kinds[kind], "optional": True} for name, kind in columns.items()]
    return {
        "http": {"enabled": False},
        "logger": {"level": "INFO", "format": "logfmt"},
        "input": {
            "kafka_franz": {
                "seed_brokers": [job.bootstrap],
                "topics": [job.topic],
                "consumer_group": job.group,
                "start_from_oldest": True,
                "checkpoint_limit": 4 * PARTITION_BATCH_ROWS,
                "batching": {"count": PARTITION_BATCH_ROWS, "period": "1s"},
            }
        },
        "pipeline": {
            "threads": -1,
            "processors": [
                {"mapping": f"root = this\nroot.{PAYLOAD} = content().string()"},
                {"parquet_encode": {"schema": schema, "default_compression": "zstd"}},
            ],
        },
        "output": {"file": {"path": f"{job.output}/${{! uuid_v4() }}.parquet", "codec": "all-bytes"}},
    }


def kafka_connect(job: Job) -> Figures:
    """Kafka Connect, standalone, with Apache Iceberg's sink into a catalog in the folder."""
    from infrastructure.kafka.local import KafkaUnavailableError, find_java, free_port

    pom = HERE / "connect" / "pom.xml"
    try:
        java = find_java()
    except KafkaUnavailableError as error:
        raise NotInstalledError(str(error)) from None
    jars = maven_jars("connect", pom)
    control = f"{job.group}-control"
    worker = job.folder / "worker.properties"
    worker.write_text(properties(worker_properties(job, free_port())))
    connector = job.folder / "connector.properties"
    connector.write_text(properties(iceberg_properties(job, control)))
    launch = Launch(
        command=[
            java,
            f"-Xmx{JVM_HEAP}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
            "-cp",
            f"{jars}/*",
            "org.apache.kafka.connect.cli.ConnectStandalone",
            str(worker),
            str(connector),
        ],
        ready=rf"(Found no committed offset for|Resetting offset for) partition {re.escape(job.topic)}-",
        rows=lambda: iceberg_rows(job.output / "lake" / "telemetry" / "metadata"),
        ends_itself=False,
    )
    _create_topic(job.bootstrap, control)
    try:
        return _measured(
            job,
            launch,
            peer="Kafka Connect, Iceberg sink",
            version=f"{_stated(pom, '<kafka.version>(.+)<')}, {_stated(pom, '<iceberg.version>(.+)<')}",
            configuration=f"2 tasks, commit each {COMMIT_MS / 1000:g} s, heap {JVM_HEAP}, table made by the sink, zstd",
            remarks="the raw message cannot be kept beside the parsed one; exactly once within its table; "
            "reading includes the table's creation and the wait for the last commit",
        )
    finally:
        _delete_topic(job.bootstrap, control)


def worker_properties(job: Job, port: int) -> dict[str, str]:
    """Of the Connect worker; it listens on 127.0.0.1 only."""
    converter = "org.apache.kafka.connect.json.JsonConverter"
    return {
        "bootstrap.servers": job.bootstrap,
        "listeners": f"http://127.0.0.1:{port}",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": converter,
        "value.converter.schemas.enable": "false",
        "offset.storage.file.filename": str(job.folder / "offsets"),
        # A task looks for its next order between records or this often; on a topic that is at rest, only this often.
        "offset.flush.interval.ms": "500",
        "consumer.auto.offset.reset": "earliest",
        "consumer.max.poll.records": "10000",
        "consumer.max.partition.fetch.bytes": str(8 * 1024 * 1024),
    }


def iceberg_properties(job: Job, control: str) -> dict[str, str]:
    """Of the sink connector."""
    return {
        "name": job.group,
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": "2",
        "topics": job.topic,
        "iceberg.catalog.type": "hadoop",
        "iceberg.catalog.warehouse": job.output.as_uri(),
        "iceberg.tables": "lake.telemetry",
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.tables.auto-create-props.write.parquet.compression-codec": "zstd",
        "iceberg.control.topic": control,
        "iceberg.control.commit.interval-ms": str(COMMIT_MS),
    }


def properties(pairs: dict[str, str]) -> str:
    """A Java properties file."""
    return "".join(f"{name}={value}\n" for name, value in pairs.items())


def iceberg_rows(metadata: Path) -> int:
    """Rows of the newest snapshot of a table in a Hadoop catalog; 0 before there is one."""
    try:
        version = (metadata / "version-hint.text").read_text().strip()
        table = json.loads((metadata / f"v{version}.metadata.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    current = table.get("current-snapshot-id")
    found = [one for one in table.get("snapshots", []) if one["snapshot-id"] == current]
    return int(found[0]["summary"].get("total-records", 0)) if found else 0


def polars(job: Job) -> Figures:
    """A script of ours: batches through Polars."""
    return _script(job, "polars", f"polars=={POLARS}", POLARS)


def duckdb(job: Job) -> Figures:
    """A script of ours: batches through DuckDB."""
    return _script(job, "duckdb", f"duckdb=={DUCKDB}", DUCKDB)


def _script(job: Job, by: str, requirement: str, version: str) -> Figures:
    wanted = [f"confluent-kafka=={CONFLUENT_KAFKA}", f"pyarrow=={PYARROW}", requirement]
    python = python_environment(f"script-{by}", wanted)
    told = job.told(by=by, batch=BATCH_ROWS)
    launch = Launch(
        command=[str(python), str(HERE / "drivers" / "script.py"), told],
        ready="^reads now$",
        rows=RowCount(job.output),
        ends_itself=True,
    )
    return _measured(
        job,
        launch,
        peer=f"script with {by}",
        version=version,
        configuration=f"confluent-kafka {CONFLUENT_KAFKA}, a file each {BATCH_ROWS:,} messages, zstd",
        remarks="one malformed message fails its batch; nothing is validated; at least once",
    )


PEERS: dict[str, Peer] = {
    "quixstreams": quixstreams,
    "benthos": benthos,
    "kafka-connect": kafka_connect,
    "polars": polars,
    "duckdb": duckdb,
}


def _measured(
    job: Job, launch: Launch, *, peer: str, version: str, configuration: str, remarks: str
) -> Figures:
    job.output.mkdir(parents=True)
    log = job.folder / "log.txt"
    life = watch(launch, job.messages, job.output, log)
    files = parquet_files(job.output)
    if not files:
        raise PeerFailedError(f"it wrote no complete Parquet file; its log ends with: {tail(log)}")
    found = contents(files, job.messages)
    return Figures(
        peer=peer,
        version=version,
        configuration=configuration,
        messages=job.messages,
        rows=found.rows,
        lost=found.lost,
        duplicated=found.duplicated,
        payloads=found.payloads,
        untyped=found.untyped,
        files=len(files),
        bytes_written=sum(path.stat().st_size for path in files),
        whole_s=round(life.whole_s, 3),
        consuming_s=round(life.consuming_s, 3),
        events_per_s=round(found.rows / life.consuming_s),
        cpu_s=round(life.cpu_s, 3),
        cpu_us_per_event=round(1e6 * life.consuming_cpu_s / job.messages, 2),
        peak_rss_bytes=life.peak_rss_bytes,
        remarks=remarks,
    )


def _stated(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text())
    assert found is not None
    return found[1]


def _create_topic(bootstrap: str, name: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(ADMIN_S)


def _delete_topic(bootstrap: str, name: str) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([name])[name].result(ADMIN_S)
