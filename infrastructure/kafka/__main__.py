"""`python -m infrastructure.kafka up | down | status | check`: a Kafka broker for development (`make kafka-up`)."""

from pathlib import Path
from typing import Annotated

import typer

from infrastructure.kafka.local import (
    LocalKafka,
    LocalKafkaError,
    archive_classes,
    fetch_jars,
    find_java,
    jars_folder,
)

# Collars are many; a vendor's trackers are few.
COLLAR_PARTITIONS = 16
VENDOR_PARTITIONS = 4
# What the MQTT bridge cannot carry: messages of owners nobody has looked up, kept 30 days.
REFUSED_CONFIG = {"retention.ms": str(30 * 24 * 3600 * 1000)}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="One Apache Kafka broker on 127.0.0.1, without containers. Needs Java 17 or later, and Maven once "
    "for the jars (kept in a cache in the home folder, or in PETWELLNESS_KAFKA_JARS).",
)

Folder = Annotated[Path, typer.Option(help="Where the broker keeps its data and its log.")]


def telemetry_topics() -> dict[str, int]:
    """Partitions of the topics that the platform reads, by name."""
    from contracts.decoders import DECODERS
    from contracts.telemetry import COLLAR_DECODER

    return {
        decoder.topic: COLLAR_PARTITIONS if decoder.name == COLLAR_DECODER else VENDOR_PARTITIONS
        for decoder in DECODERS.values()
    }


def refused_topic() -> str:
    """Where the MQTT bridge puts what it cannot carry."""
    from ingestion.settings import MqttSettings

    return MqttSettings().refused_topic


@app.command()
def up(
    folder: Folder = Path("build/kafka"),
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1.", min=1, max=65535)] = 9092,
) -> None:
    """Start it on what its folder holds, and create the platform's topics that are missing."""
    _fetch()
    kafka = LocalKafka(folder, port)
    kafka.start(detached=True)
    existing = kafka.topics()
    for name, partitions in telemetry_topics().items():
        if name not in existing:
            kafka.create_topic(name, partitions)
    if refused_topic() not in existing:
        kafka.create_topic(refused_topic(), config=REFUSED_CONFIG)
    typer.echo(f"Kafka runs on {kafka.bootstrap_servers}; data and log are in {kafka.folder}. To use it:")
    typer.echo(f"export PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap_servers}")


@app.command()
def down(folder: Folder = Path("build/kafka")) -> None:
    """Stop it and wait until it is gone; its data stay. Without a running broker this does nothing."""
    kafka = LocalKafka(folder)
    typer.echo(
        f"Kafka stopped; its data stay in {kafka.folder}" if kafka.stop() else "no Kafka runs in this folder"
    )


@app.command()
def status(folder: Folder = Path("build/kafka")) -> None:
    """Whether it runs, where, and its topics; exit code 1 if it does not run."""
    kafka = LocalKafka(folder)
    running = kafka.running()
    if running is None:
        typer.echo(f"no Kafka runs in {kafka.folder}")
        raise typer.Exit(1)
    typer.echo(
        f"Kafka runs on {kafka.bootstrap_servers} (process {running.pid}); its log is {kafka.log_path}"
    )
    for name, partitions in sorted(kafka.topics().items()):
        typer.echo(f"  {name}  {partitions} partitions")


@app.command()
def check() -> None:
    """Whether this machine can run Kafka: looks for Java, fetches the jars if they are not here yet, and prepares
    their classes so that brokers start faster."""
    java = find_java()
    typer.echo(f"Kafka can run here: {java}, jars in {_fetch()}")
    archive_classes()


def _fetch() -> Path:
    if not jars_folder().is_dir():
        typer.echo(f"fetching Kafka's jars by Maven into {jars_folder()} ...")
    return fetch_jars()


def main() -> None:
    """Run the command; what is expected to go wrong is one line and exit code 1."""
    try:
        app(prog_name="python -m infrastructure.kafka")
    except LocalKafkaError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
