"""One Apache Kafka broker on this machine, without containers: its jars, its start, its end.

`LocalKafka` is a single KRaft broker (broker and controller in one process) in a
folder of its own, on 127.0.0.1 only. Maven fetches the jars named in `pom.xml`
into a cache that all folders share. Development, tests and benchmarks use it; the
platform does not. Which topics the platform reads is in `contracts.decoders`,
the command line in `__main__`.
"""

import base64
import contextlib
import fcntl
import hashlib
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import psutil
    from confluent_kafka.admin import AdminClient

POM = Path(__file__).with_name("pom.xml")
JARS_VARIABLE = "PETWELLNESS_KAFKA_JARS"
HOST = "127.0.0.1"
MIN_JAVA = 17
FETCH_TIMEOUT_S = 900
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
ADMIN_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 20
# Below the ports that systems hand out for outgoing connections, so that a broker finds its port free
# again when it restarts.
FREE_PORTS = range(20_000, 30_000)

# For a broker that lives for seconds: the thorough compiler would take longer than what it makes faster, and so would
# a collector of garbage with threads of its own.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

# A replay carries its original time of receipt, years back; retention looks at that time.
TOPIC_CONFIG = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}

# Beyond Kafka's defaults: everything that is kept three times is kept once, internal topics are small,
# no waiting for more members, buffers that fit a small heap, members that may time out fast in tests.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # A misspelt topic has to be an error, not a new topic.
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A crashed broker comes back once the controller has given up its former self, after 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "log.segment.delete.delay.ms": "1000",
}

_silent = logging.getLogger(f"{__name__}.librdkafka")
_silent.setLevel(logging.CRITICAL)


class LocalKafkaError(Exception):
    """The broker cannot do what was asked; the text says why and what to do."""


class KafkaUnavailableError(LocalKafkaError):
    """This machine cannot run Kafka: Java, Maven or the jars are missing. The text says how to get them."""


class Card(msgspec.Struct, frozen=True):
    """The process and the port of a broker that was started."""

    pid: int
    port: int


class LocalKafka:
    """One broker in `folder`: its data, log (`server.log`), properties and card (`kafka.json`).

    As a context manager it runs inside the block. A broker that is started any
    other way than `start(detached=True)` ends with this process, however that
    ends. Without a port it takes a free one and keeps it over restarts.
    `properties` are broker settings beyond this module's own. One that is `short_lived`
    starts with less work and does much of it slower. Every method raises
    LocalKafkaError when the broker does not do what is asked.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        heap_mb: int = 700,
        properties: Mapping[str, str] | None = None,
        short_lived: bool = False,
    ) -> None:
        self.folder = folder.absolute()
        self._port = port
        self._heap_mb = heap_mb
        self._extra = dict(properties or {})
        self._java_options = SHORT_LIVED if short_lived else ()
        self._archives_to: Path | None = None
        self._detached = False
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._admin: AdminClient | None = None

    def __enter__(self) -> "LocalKafka":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What is known of it

    @property
    def log_path(self) -> Path:
        """What the broker warned of and failed with."""
        return self.folder / "server.log"

    @property
    def bootstrap_servers(self) -> str:
        """Its address, whether it runs now or did before."""
        port = self._port or (self._card().port if self._card() else None)  # type: ignore[union-attr]
        if port is None:
            raise LocalKafkaError(f"the broker of {self.folder} has not been started, so it has no address")
        return f"{HOST}:{port}"

    def running(self) -> Card | None:
        """The card of its process if that runs, whoever started it."""
        card = self._card()
        return card if card is not None and self._process_of(card) is not None else None

    # Life

    def start(self, *, detached: bool = False) -> None:
        """Start it on what the folder holds, and wait until it answers.

        Raises KafkaUnavailableError without Java or jars, LocalKafkaError when it
        runs already, its port is taken, or it dies at the start (with its log's tail).
        """
        java, jars = find_java(), fetch_jars()
        classes = self._class_option(java, jars)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._detached = detached
        process = None
        try:
            with self._one_at_a_time():
                running = self.running()
                if running is not None:
                    raise LocalKafkaError(
                        f"a broker already runs in {self.folder}: process {running.pid} on {HOST}:{running.port}; "
                        "use it or stop it first"
                    )
                if self._port is None:
                    self._port = free_port()
                check_port(self._port)
                self._write_properties(self._port)
                self._format(java, jars, classes)
                with self.log_path.open("ab") as log:
                    process = self._process = subprocess.Popen(
                        [
                            *(java, *classes, *self._java_options, f"-Xmx{self._heap_mb}m"),
                            *_program(jars, "kafka.Kafka", str(self._properties_path)),
                        ],
                        cwd=self.folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        # A Ctrl-C in the terminal is not meant for it.
                        start_new_session=True,
                    )
                self._write_card(Card(process.pid, self._port))
            if not detached:
                self._watcher = _ends_with_us(process.pid)
            self._wait_until_it_answers(process)
        except BaseException:
            if process is not None:
                # By itself, since it may not be on the card yet.
                process.kill()
                self.kill()
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop it in good order, wait until it is gone, and kill it if it does not go; whether it ran."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> bool:
        """End it at once (`kill -9`), as a crash would; whether it ran."""
        return self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def restart(self, *, crash: bool = False) -> None:
        """End it (in good order, or as a crash) and start it again: same data, same port."""
        self.kill() if crash else self.stop()
        self.start(detached=self._detached)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._signal(signal.SIGCONT)

    # Topics

    def admin(self) -> "AdminClient":
        """The administration client of this broker, one as long as it runs."""
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            config: dict[str, Any] = {
                "bootstrap.servers": self.bootstrap_servers,
                "reconnect.backoff.max.ms": 500,
            }
            self._admin = AdminClient(config, logger=_silent)
        return self._admin

    def topics(self) -> dict[str, int]:
        """Partitions by topic, internal topics left out."""
        found = self.admin().list_topics(timeout=ADMIN_TIMEOUT_S).topics
        return {name: len(topic.partitions) for name, topic in found.items() if not name.startswith("__")}

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic that keeps everything (`TOPIC_CONFIG`, then `config`), and wait until it is there."""
        from confluent_kafka.admin import NewTopic

        topic = NewTopic(name, partitions, 1, config=TOPIC_CONFIG | dict(config or {}))
        _result(self.admin().create_topics([topic], operation_timeout=ADMIN_TIMEOUT_S)[name])
        self._wait_for_topic(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        _result(self.admin().delete_topics([name], operation_timeout=ADMIN_TIMEOUT_S)[name])
        _wait(lambda: name not in self.topics(), ADMIN_TIMEOUT_S, f"topic {name} is still there")

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to `total` partitions, and wait until they are there."""
        from confluent_kafka.admin import NewPartitions

        _result(self.admin().create_partitions([NewPartitions(name, total)])[name])
        self._wait_for_topic(name, total)

    def delete_records(self, name: str, partition: int, before: int) -> None:
        """Forget a partition's messages before an offset, as retention does."""
        from confluent_kafka import TopicPartition

        place = TopicPartition(name, partition, before)
        _result(self.admin().delete_records([place])[place])

    def _wait_for_topic(self, name: str, partitions: int) -> None:
        def there() -> bool:
            found = self.admin().list_topics(name, timeout=ADMIN_TIMEOUT_S).topics[name].partitions
            return len(found) == partitions and all(one.leader >= 0 for one in found.values())

        _wait(there, ADMIN_TIMEOUT_S, f"topic {name} has not got {partitions} partitions with a leader")

    # Files of the folder

    @property
    def _properties_path(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _card(self) -> Card | None:
        try:
            return msgspec.json.decode((self.folder / "kafka.json").read_bytes(), type=Card)
        except FileNotFoundError:
            return None

    def _write_card(self, card: Card) -> None:
        temporary = self.folder / "kafka.json.tmp"
        temporary.write_bytes(msgspec.json.encode(card))
        temporary.replace(self.folder / "kafka.json")

    def _write_properties(self, port: int) -> None:
        controller = free_port(other_than=port)
        places = {
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
            "log.dirs": str(self._data),
        }
        lines = [f"{name}={value}\n" for name, value in (_PROPERTIES | places | self._extra).items()]
        self._properties_path.write_text("".join(lines))

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # Its process

    def _class_option(self, java: str, jars: Path) -> list[str]:
        """Java's option for the archive of classes: which one to use, or where to leave it."""
        if self._archives_to is not None:
            return [f"-XX:ArchiveClassesAtExit={self._archives_to}"]
        archive = class_archive(java, jars)
        return [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []

    def _format(self, java: str, jars: Path, classes: Sequence[str]) -> None:
        """Give an empty data folder its cluster id."""
        if (self._data / "meta.properties").exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # An id that begins with a dash would be taken for an option.
        cluster_id = cluster_id.replace("-", "A")
        arguments = ("format", "-t", cluster_id, "-c", str(self._properties_path))
        done = subprocess.run(
            [java, *classes, *SHORT_LIVED, *_program(jars, "kafka.tools.StorageTool", *arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise LocalKafkaError(
                f"{self._data} could not be formatted for Kafka:\n{_tail(done.stdout + done.stderr)}"
            )

    def _wait_until_it_answers(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            code = process.poll()
            if code is not None:
                raise LocalKafkaError(
                    f"the broker of {self.folder} died at its start (exit code {code}); "
                    f"the end of {self.log_path}:\n{_tail(self.log_path.read_text(errors='replace'))}"
                )
            if _accepts(self._port or 0) and _answers(self.admin()):
                return
            if time.monotonic() > deadline:
                raise LocalKafkaError(
                    f"the broker of {self.folder} does not answer after {START_TIMEOUT_S:.0f} s; "
                    f"the end of {self.log_path}:\n{_tail(self.log_path.read_text(errors='replace'))}"
                )
            time.sleep(0.05)

    def _process_of(self, card: Card) -> "psutil.Process | None":
        """The process a card names, if it still is this folder's broker and not another that got its id."""
        import psutil

        try:
            process = psutil.Process(card.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return process if str(self._properties_path) in process.cmdline() else None
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None

    def _signal(self, number: int) -> None:
        running = self.running()
        if running is None:
            raise LocalKafkaError(f"no broker runs in {self.folder}")
        os.kill(running.pid, number)

    def _end(self, number: int, timeout_s: float) -> bool:
        import psutil

        self._admin = None
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
        card = self._card()
        process = self._process_of(card) if card is not None else None
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                try:
                    process.wait(timeout_s)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait(STOP_TIMEOUT_S)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
        (self.folder / "kafka.json").unlink(missing_ok=True)
        return process is not None


# Java and the jars


def find_java() -> str:
    """The java of JAVA_HOME or else of the path. Raises KafkaUnavailableError if it is none or too old."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    how = f"install a JDK or JRE of version {MIN_JAVA} or later, or set JAVA_HOME to one"
    if java is None:
        raise KafkaUnavailableError(f"Kafka needs Java, and there is none here; {how}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    version = java_version(told.stderr + told.stdout)
    if version is None or version < MIN_JAVA:
        found = f"is version {version}" if version else f"does not run: {_tail(told.stderr, 2)}"
        raise KafkaUnavailableError(f"Kafka needs Java {MIN_JAVA} or later, and {java} {found}; {how}")
    return java


def java_version(told: str) -> int | None:
    """The feature version in what `java -version` prints (8 for 1.8); None if there is none."""
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found[1]) if found else None


def jars_folder() -> Path:
    """Where the jars are or will be: PETWELLNESS_KAFKA_JARS, or a cache named by what `pom.xml` says."""
    stated = os.environ.get(JARS_VARIABLE)
    if stated:
        return Path(stated).expanduser().absolute()
    pom = POM.read_bytes()
    found = re.search(rb"<kafka.version>(.+)</kafka.version>", pom)
    version = found[1].decode() if found else "unknown"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "petwellness" / f"kafka-{version}-{hashlib.sha256(pom).hexdigest()[:8]}"


def fetch_jars() -> Path:
    """The folder of jars, fetched by Maven the first time. Raises KafkaUnavailableError."""
    folder = jars_folder()
    if folder.is_dir():
        if not any(folder.glob("kafka_2.13-*.jar")):
            raise KafkaUnavailableError(
                f"{folder} holds no Kafka jar; remove it or set {JARS_VARIABLE} to a folder that does"
            )
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailableError(
            "Kafka's jars are fetched by Maven, and there is no mvn here; install Maven, "
            f"or set {JARS_VARIABLE} to a folder with the jars that {POM.name} names"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        _run_maven(maven, temporary)
        with contextlib.suppress(OSError):  # Another process was faster; its jars are the same.
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return fetch_jars()


def class_archive(java: str, jars: Path) -> Path:
    """Where Kafka's classes are, read and verified, as this Java maps them: a broker uses it where it is there, and
    starts in less than half of the time."""
    found = Path(java).resolve()
    digest = hashlib.sha256(f"{found} {found.stat().st_mtime_ns}".encode()).hexdigest()[:8]
    return jars / f"classes-{digest}.jsa"


def archive_classes() -> Path:
    """Make the archive of classes unless it is there: a broker starts and stops for it. Worth it for several starts.

    Raises KafkaUnavailableError without Java or jars.
    """
    jars = fetch_jars()
    archive = class_archive(find_java(), jars)
    if not archive.exists():
        with (jars / "classes.lock").open("w") as lock, tempfile.TemporaryDirectory() as name:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                written = Path(name) / archive.name
                broker = LocalKafka(Path(name) / "broker")
                broker._archives_to = written
                with broker:
                    broker.create_topic("any")
                shutil.copyfile(written, jars / "classes.tmp")
                (jars / "classes.tmp").replace(archive)
    return archive


def _program(jars: Path, main: str, *arguments: str) -> list[str]:
    """What of a command line follows Java's own options."""
    return [
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS",
        "-cp",
        f"{jars}/*",
        main,
        *arguments,
    ]


def _run_maven(maven: str, output: Path) -> None:
    command = [maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(POM)]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={output}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KafkaUnavailableError(f"Maven took longer than {FETCH_TIMEOUT_S} s to fetch the jars") from None
    if done.returncode:
        raise KafkaUnavailableError(
            f"Maven could not fetch Kafka's jars; is the network there?\n{_tail(done.stdout + done.stderr)}"
        )


# Ports and processes


def free_port(other_than: int | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(FREE_PORTS, 100):
        if port != other_than and _is_free(port):
            return port
    raise LocalKafkaError(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def check_port(port: int) -> None:
    """Raises LocalKafkaError if somebody listens on a port of 127.0.0.1."""
    if not _is_free(port):
        raise LocalKafkaError(
            f"port {port} of {HOST} is taken by another process; stop that one or choose another port"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the broker does: connections of its predecessor that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(admin: "AdminClient") -> bool:
    from confluent_kafka import KafkaException

    try:
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _ends_with_us(pid: int) -> "subprocess.Popen[bytes]":
    """A process that kills `pid` when this process is gone: the pipe between them closes, whatever happens."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'cat > /dev/null; kill -9 "$0"', str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _result(future: Any) -> None:
    from confluent_kafka import KafkaException

    try:
        future.result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        raise LocalKafkaError(f"the broker refused: {error.args[0].str()}") from error


def _wait(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LocalKafkaError(f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(0.02)


def _tail(text: str, lines: int = LOG_TAIL_LINES) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
