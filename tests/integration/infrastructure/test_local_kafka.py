"""The local Kafka: starts and ends when told, says what is wrong, and leaves no process behind."""

import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from waiting import DEADLINE_S, until

from infrastructure.kafka import local
from infrastructure.kafka.__main__ import main
from infrastructure.kafka.local import KafkaUnavailableError, LocalKafka, LocalKafkaError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str) -> Ended:
    """In this process: only `up`, which leaves a process behind, has to end before what it started."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with (
        patch.object(sys, "argv", ["kafka", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return Ended(int(code or 0), out.getvalue(), err.getvalue())


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def java_that_never_serves(folder: Path) -> dict[str, str]:
    """Settings with a stand-in for Java and the jars: a broker started with it starts for ever."""
    os.mkfifo(folder / "never")
    script(
        folder / "bin" / "java",
        f"""case "$*" in
*-version*) echo 'openjdk version "17.0.1"' >&2 ;;
*kafka.Kafka*) read -r line < {folder / "never"} ;;
esac""",
    )
    (folder / "jars").mkdir()
    (folder / "jars" / "kafka_2.13-0.jar").touch()
    return {"JAVA_HOME": str(folder), local.JARS_VARIABLE: str(folder / "jars")}


@pytest.fixture
def jars(shared_kafka: Any) -> None:
    """Java and the jars are here, else the test is skipped."""


def test_the_command_starts_says_how_to_use_it_and_stops(tmp_path: Path, jars: None) -> None:
    folder = str(tmp_path / "k")
    kafka = LocalKafka(Path(folder))
    assert command("status", "--folder", folder).returncode == 1
    port = str(local.free_port())
    up = ["up", "--folder", folder, "--port", port]
    with subprocess.Popen(
        [sys.executable, "-m", "infrastructure.kafka", *up],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as starting:
        try:
            assert starting.stdout is not None
            said = starting.stdout.read()
            assert starting.wait(DEADLINE_S) == 0
            assert f"export PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}" in said
            # Another session than the terminal's, whose Ctrl-C does not reach it, and it outlives its command.
            running = kafka.running()
            assert running is not None
            assert os.getsid(running.pid) == running.pid != starting.pid
            told = command("status", "--folder", folder)
            assert told.returncode == 0
            assert "telemetry.campusiot  4 partitions" in told.stdout
            # Only this machine can reach it.
            listening = {
                c.laddr.ip  # type: ignore[union-attr]
                for c in psutil.Process(running.pid).net_connections()
                if c.status == "LISTEN"
            }
            assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
            again = command(*up)
            assert (again.returncode, "already runs" in again.stderr) == (1, True)
            other = command("up", "--folder", str(tmp_path / "other"), "--port", port)
            assert (other.returncode, f"port {port} of 127.0.0.1 is taken" in other.stderr) == (1, True)
            assert kafka.running() == running
        finally:
            stopped = command("down", "--folder", folder)
    assert stopped.returncode == 0
    assert "Kafka stopped" in stopped.stdout
    assert kafka.running() is None
    assert "no Kafka runs" in command("down", "--folder", folder).stdout


def test_a_restart_keeps_data_address_and_identity_and_a_frozen_broker_can_be_killed(own_kafka: Any) -> None:
    from confluent_kafka import TopicCollection

    def identity() -> tuple[str, str]:
        admin = own_kafka.admin()
        topic = admin.describe_topics(TopicCollection(["t"]))["t"].result()
        return admin.describe_cluster().result().cluster_id, str(topic.topic_id)

    own_kafka.create_topic("t", 3)
    before, address = identity(), own_kafka.bootstrap_servers
    for crash in (False, True):
        pid = own_kafka.running().pid
        own_kafka.restart(crash=crash)
        assert (identity(), own_kafka.bootstrap_servers) == (before, address)
        assert own_kafka.topics() == {"t": 3}
        assert own_kafka.running().pid != pid

    own_kafka.pause()
    own_kafka.stop(timeout_s=0.2)
    assert own_kafka.running() is None
    with pytest.raises(LocalKafkaError, match="no broker runs"):
        own_kafka.resume()


def test_a_broker_starts_from_classes_that_were_read_before(shared_kafka: Any) -> None:
    mapped = {one.path for one in psutil.Process(shared_kafka.running().pid).memory_maps()}
    assert str(local.archive_classes()) in mapped


def test_topics_come_grow_and_go(shared_kafka: Any) -> None:
    shared_kafka.create_topic("short-lived", 1, {"retention.ms": "1000"})
    with pytest.raises(LocalKafkaError, match="already exists"):
        shared_kafka.create_topic("short-lived")
    shared_kafka.add_partitions("short-lived", 3)
    assert shared_kafka.topics()["short-lived"] == 3
    shared_kafka.delete_topic("short-lived")
    assert "short-lived" not in shared_kafka.topics()


def test_a_broker_that_dies_at_its_start_shows_the_end_of_its_log(tmp_path: Path, jars: None) -> None:
    kafka = LocalKafka(tmp_path, heap_mb=256, short_lived=True, properties={"num.io.threads": "0"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=1\n")
    with pytest.raises(LocalKafkaError, match=r"(?s)died at its start.*num\.io\.threads"):
        kafka.start()
    assert kafka.running() is None


def test_a_folder_that_cannot_be_formatted_is_named(tmp_path: Path, jars: None) -> None:
    kafka = LocalKafka(tmp_path, heap_mb=256, short_lived=True, properties={"process.roles": "conductor"})
    with pytest.raises(LocalKafkaError, match=r"(?s)could not be formatted.*conductor"):
        kafka.start()


def test_it_ends_with_the_process_that_started_it_even_when_that_is_killed(
    tmp_path: Path, jars: None
) -> None:
    code = (
        "from pathlib import Path; from infrastructure.kafka.local import LocalKafka; import time\n"
        f"LocalKafka(Path({str(tmp_path)!r}), heap_mb=256, short_lived=True).start(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        assert LocalKafka(tmp_path).running() is not None
        owner.kill()
    until(lambda: LocalKafka(tmp_path).running() is None, "the end of the broker")


def test_ctrl_c_leaves_no_broker_behind_that_is_starting(tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path / "k")
    arguments = [sys.executable, "-m", "infrastructure.kafka", "up", "--folder", str(kafka.folder)]
    arguments += ["--port", str(local.free_port())]
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | java_that_never_serves(tmp_path),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as starting:
        broker = until(kafka.running, "a broker that is starting")
        os.killpg(starting.pid, signal.SIGINT)
        assert starting.wait(DEADLINE_S) != 0
    assert kafka.running() is None
    assert not psutil.pid_exists(broker.pid)


def test_ctrl_c_before_the_broker_is_noted_leaves_none_behind_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in java_that_never_serves(tmp_path).items():
        monkeypatch.setenv(name, value)
    before = {child.pid for child in psutil.Process().children()}

    class Interrupted(LocalKafka):
        def _write_card(self, card: local.Card) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted(tmp_path / "k").start(detached=True)
    left = [child for child in psutil.Process().children() if child.pid not in before]
    for child in left:
        child.kill()
    assert left == []


def test_another_process_with_the_id_of_a_dead_broker_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        kafka = LocalKafka(tmp_path)
        kafka._write_card(local.Card(other.pid, 9092))
        assert kafka.running() is None
        assert kafka.stop() is False
        assert other.poll() is None
        other.send_signal(signal.SIGTERM)


def test_without_java_or_with_an_old_one_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailableError, match="there is none here; install a JDK or JRE of version 17"):
        local.find_java()
    script(tmp_path / "bin" / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(KafkaUnavailableError, match="is version 11; install"):
        local.find_java()
    script(tmp_path / "bin" / "java", "echo 'no runtime' >&2; exit 1")
    with pytest.raises(KafkaUnavailableError, match="does not run: no runtime"):
        local.find_java()


def test_without_maven_or_the_network_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(local.JARS_VARIABLE, str(tmp_path / "cache" / "jars"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailableError, match="no mvn here; install Maven"):
        local.fetch_jars()
    script(tmp_path / "mvn", "echo 'Could not transfer artifact'; exit 1")
    with pytest.raises(KafkaUnavailableError, match=r"(?s)is the network there.*Could not transfer"):
        local.fetch_jars()
    # Nothing half fetched stays behind.
    assert [*(tmp_path / "cache").iterdir()] == []
    (tmp_path / "cache" / "jars").mkdir()
    with pytest.raises(KafkaUnavailableError, match="holds no Kafka jar"):
        local.fetch_jars()


def test_a_listening_port_is_taken_and_a_closed_one_is_free() -> None:
    with socket.socket() as listener:
        listener.bind((local.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(LocalKafkaError, match=f"port {port} of 127.0.0.1 is taken"):
            local.check_port(port)
    local.check_port(port)
