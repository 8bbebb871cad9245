"""docker-compose.yml: valid, on 127.0.0.1 only, and the same services as elsewhere in the repository."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from infrastructure.kafka.__main__ import REFUSED_CONFIG, refused_topic, telemetry_topics
from infrastructure.kafka.local import POM
from petwellness_orchestration.cli.app import app

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "docker-compose.yml"


def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_it_is_valid_by_the_compose_schema(schema_problems: Callable[[str, Path], str]) -> None:
    assert schema_problems("vendor.compose-spec", COMPOSE) == ""


def test_it_offers_what_the_platform_talks_to() -> None:
    assert {"kafka", "s3", "mqtt", "postgres"} <= services().keys()


def test_the_platform_starts_only_when_asked_for() -> None:
    platform = {name for name, service in services().items() if service.get("profiles") == ["platform"]}
    assert platform == {"code", "web", "daemon", "collector", "prometheus", "grafana"}


def test_its_processes_are_commands_of_petwellness() -> None:
    for name in ("code", "web", "daemon", "collector"):
        # Asked for its help instead of run: an option that is not known is an error before that.
        shown = CliRunner().invoke(app, [*services()[name]["command"], "--help"])
        assert shown.exit_code == 0, shown.output


def test_only_this_machine_can_reach_it() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 7
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_kafka_is_the_one_that_maven_fetches() -> None:
    images = {name: service["image"] for name, service in services().items() if "build" not in service}
    assert all(re.fullmatch(r"[a-z/-]+:[\w.-]*\d[\w.-]*", image) for image in images.values()), images
    version = re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    assert version is not None
    assert images["kafka"] == images["kafka-topics"] == f"apache/kafka:{version[1]}"


def test_it_creates_the_topics_that_kafka_up_creates() -> None:
    script = services()["kafka-topics"]["entrypoint"][-1]
    created = {
        name: (int(partitions), retention_ms)
        for name, partitions, retention_ms in re.findall(r"^create (\S+) (\d+) (-?\d+)$", script, re.M)
    }
    refused = created.pop(refused_topic())
    assert refused == (1, REFUSED_CONFIG["retention.ms"])
    assert created == {name: (partitions, "-1") for name, partitions in telemetry_topics().items()}
    assert "message.timestamp.type=CreateTime" in script


def test_files_and_volumes_it_mounts_exist() -> None:
    named = yaml.safe_load(COMPOSE.read_text())["volumes"].keys()
    mounts = [volume for service in services().values() for volume in service.get("volumes", [])]
    for source in (volume.split(":")[0] for volume in mounts):
        assert (ROOT / source).is_file() if source.startswith(".") else source in named
