"""A state folder has one embedded broker, and one that was killed leaves nothing that stands in the way."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ingestion.broker.client import BrokerUnreachableError, connect
from ingestion.broker.embedded import BrokerCard, EmbeddedBroker, EmbeddedBrokerError, read_card
from ingestion.settings import BrokerSettings

SERVES = (
    "import sys, threading; from pathlib import Path; from ingestion.broker.embedded import EmbeddedBroker\n"
    "EmbeddedBroker({'t': 1}, Path(sys.argv[1])).start(); print('serves', flush=True); threading.Event().wait()"
)


def test_a_second_broker_is_refused_and_one_after_a_kill_is_not(tmp_path: Path) -> None:
    path = tmp_path / "broker.json"
    with subprocess.Popen([sys.executable, "-c", SERVES, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"serves\n"
            with pytest.raises(EmbeddedBrokerError, match=rf"process {process.pid} already.*stop it first"):
                EmbeddedBroker({"t": 1}, path).start()
            # Who only asks, often and at once, is no second broker.
            assert all(read_card(path) is not None for _ in range(50))
        finally:
            process.kill()
    # As it is when the id of the killed process has been given to another.
    left = msgspec.json.decode(path.read_bytes(), type=BrokerCard)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(left, pid=os.getppid())))
    assert read_card(path) is None
    with pytest.raises(BrokerUnreachableError, match="no embedded broker runs for"):
        connect(BrokerSettings(), tmp_path)
    with EmbeddedBroker({"t": 1}, path) as broker:
        assert read_card(path) == broker.card
        assert connect(BrokerSettings(), tmp_path).embedded
        with pytest.raises(EmbeddedBrokerError, match="stop it first"):
            EmbeddedBroker({"t": 1}, path).start()
    assert not path.exists()
    assert read_card(path) is None


def test_a_broker_that_could_not_start_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "broker.json"
    (tmp_path / "broker.tmp").mkdir()
    with pytest.raises(IsADirectoryError):
        EmbeddedBroker({"t": 1}, path).start()
    (tmp_path / "broker.tmp").rmdir()
    with EmbeddedBroker({"t": 1}, path):
        pass
