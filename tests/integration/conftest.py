"""Apache Kafka for the tests that can do with nothing else, a lake on S3, and a reader of Snowflake's language."""

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lake.store import S3Store

HEAP_MB = 256


def kafka_or_skip(folder: Path, **options: Any) -> Any:
    """A started LocalKafka; skips, with the reason, where Java, Maven or the jars cannot be had."""
    from infrastructure.kafka.local import KafkaUnavailableError, LocalKafka, archive_classes

    kafka = LocalKafka(folder, **{"heap_mb": HEAP_MB, "short_lived": True} | options)
    try:
        archive_classes()
        kafka.start()
    except KafkaUnavailableError as error:
        pytest.skip(f"not run on Apache Kafka: {error}")
    return kafka


@pytest.fixture(scope="session")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A broker that all tests of this process share: leave it running and use topics of your own."""
    kafka = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.kill()


@pytest.fixture
def disturbed_kafka(shared_kafka: Any) -> Iterator[Any]:
    """The shared broker for a test that stops, kills or freezes it: it runs again when the test ends."""
    yield shared_kafka
    if shared_kafka.running() is None:
        shared_kafka.start()
    else:
        shared_kafka.resume()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Any]:
    """A broker of this test alone, which may stop, kill and freeze it."""
    kafka = kafka_or_skip(tmp_path / "kafka")
    yield kafka
    kafka.kill()


@pytest.fixture
def s3_store() -> Iterator[S3Store]:
    """A lake on an S3 server of this test."""
    import boto3
    from moto.server import ThreadedMotoServer

    # Servers of one process share what they hold.
    bucket = f"lake-{uuid.uuid4().hex}"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        access = {"endpoint_url": f"http://{host}:{port}"}
        boto3.client(
            "s3", **access, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        ).create_bucket(Bucket=bucket)
        yield S3Store(bucket, "pw", **access, region="us-east-1", access_key_id="k", secret_access_key="s")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def snowflake_problems() -> Callable[[str], list[str]]:
    """From SQL to what is wrong with it as Snowflake's: sqlfluff's dialect, and functions that Snowflake's
    documentation does not list, which no parser knows."""
    from sqlfluff.core import FluffConfig, Linter

    settings: dict[str, Any] = {"dialect": "snowflake", "templater": "raw", "large_file_skip_byte_limit": 0}
    linter = Linter(config=FluffConfig(overrides=settings))
    known = {
        line
        for line in (Path(__file__).parent / "dbt_project" / "snowflake_functions.txt")
        .read_text()
        .splitlines()
        if not line.startswith("#")
    }

    def problems(sql: str) -> list[str]:
        parsed = linter.parse_string(sql)
        found = [f"{error.desc()} (line {error.line_no})" for error in parsed.violations]
        if parsed.tree is None:
            return found

        # The parser takes the names of policies for names of functions.
        policies = {
            name.lower() for name in re.findall(r"\bwith masking policy (\S+?)[,\s]", sql, re.IGNORECASE)
        }
        named = {one.raw.lower() for one in parsed.tree.recursive_crawl("function_name", "bare_function")}
        found += [f"unknown function {name}" for name in sorted(named - known - policies)]
        # Snowflake takes `interval '1 day'` only; the parser lets `interval 1 day` pass.
        found += ["interval without quotes" for _ in re.finditer(r"\binterval\s+[^'\s]", sql, re.IGNORECASE)]
        return found

    return problems
