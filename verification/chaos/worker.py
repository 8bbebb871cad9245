"""One worker: the collector as a service, in a process that may be killed or frozen at any moment."""

import ctypes
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestion.broker.client import BrokerClient
    from ingestion.collector.service import Failure

# Loaded once in the process that workers are forked from, so that a restart takes 0.1 s. The last three are what the
# first landing of a process would import: numba its functions on arrays, pyarrow pandas.
PRELOAD = (
    "verification.chaos.mutants",
    "verification.chaos.worker",
    "boto3",
    "confluent_kafka",
    "confluent_kafka.admin",
    "ingestion.broker.client",
    "ingestion.collector.service",
    "contracts.decoders",
    "lake.store",
    "ingestion.settings",
    "ingestion.collector.scan",
    "numba.np.arraymath",
    "pandas",
)
_PR_SET_PDEATHSIG = 1
FIRST_DELAY_S, LAST_DELAY_S = 0.2, 2.0
STARTED_OVER = "the collector starts over"


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; `group_id` None means a group of its own (every range is contested)."""

    name: str
    home: Path
    log_path: Path
    bucket: str
    s3_port: int
    topic: str
    bootstrap_servers: str
    group_id: str | None
    static_member: bool
    session_timeout_s: float
    rotate_rows: int
    rotate_age_s: float
    broken: str | None = None


def run_worker(spec: WorkerSpec) -> None:
    """Collect until SIGTERM; exits with 1 and one line in the log when the service gives up."""
    _die_with_parent()
    log = os.open(spec.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C reaches the whole group of processes; the parent decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _collect(spec, stop)
    except Exception as error:
        logging.exception("%s gives up: %s", spec.name, type(error).__name__)
        sys.stderr.flush()
        os._exit(1)
    # Whatever librdkafka still has to say to a broker that is gone must not hold up the end.
    sys.stderr.flush()
    os._exit(0)


def _collect(spec: WorkerSpec, stop: threading.Event) -> None:
    from ingestion.broker.client import connect
    from ingestion.collector import service
    from ingestion.collector.engine import Collector
    from ingestion.settings import BrokerSettings, CollectorSettings
    from lake.settings import LakeSettings
    from lake.store import open_store
    from verification.chaos.mutants import break_rule

    lake = LakeSettings.model_validate(
        {
            "url": f"s3://{spec.bucket}",
            "endpoint_url": f"http://127.0.0.1:{spec.s3_port}",
            "access_key_id": "chaos",
            "secret_access_key": "chaos",
        }
    )
    broker = BrokerSettings(
        bootstrap_servers=spec.bootstrap_servers,
        group_id=spec.group_id or f"{spec.bucket}-{spec.name}",
        client_id=spec.name,
        group_instance_id=spec.name if spec.static_member else None,
        session_timeout_s=spec.session_timeout_s,
    )
    rotation = CollectorSettings(rotate_rows=spec.rotate_rows, rotate_age_s=spec.rotate_age_s)
    store = open_store(lake, spec.home)
    if spec.broken is not None:
        store = break_rule(spec.broken, store)

    def make() -> Collector:
        client = connect(broker, spec.home)
        if client.embedded and spec.group_id is not None:
            client = shared_group(client)
        return Collector(client, store, rotation, [spec.topic])

    # A minute between attempts would only make scenarios long.
    service.FIRST_DELAY_S, service.LAST_DELAY_S = FIRST_DELAY_S, LAST_DELAY_S
    service.serve(make, stop, _log_failure)
    logging.info("%s stopped", spec.name)


def _log_failure(failure: "Failure") -> None:
    logging.error("%s: %s: %s", STARTED_OVER, type(failure.error).__name__, failure.error)


def shared_group(client: "BrokerClient") -> "BrokerClient":
    """The client with one group for all workers, which the embedded broker otherwise avoids."""
    from ingestion.broker.client import BrokerClient

    class SharedGroupClient(BrokerClient):
        def consumer(self, **overrides: Any) -> Any:
            return super().consumer(**{"group.id": self.settings.group_id} | overrides)

    return SharedGroupClient(client.settings, client.bootstrap_servers, client.card_path, client.card)


def _die_with_parent() -> None:
    """End when the process that workers are forked from ends, frozen or not."""
    from multiprocessing import forkserver

    # It ends when nobody holds this pipe any more; a worker that did would keep it and itself alive.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
