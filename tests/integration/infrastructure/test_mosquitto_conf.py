"""The MQTT broker's configuration is one that mosquitto starts with."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from waiting import end, until

from infrastructure.kafka.local import HOST, free_port

CONF = Path(__file__).resolve().parents[3] / "infrastructure" / "mqtt" / "mosquitto.conf"


def test_mosquitto_starts_with_it(tmp_path: Path) -> None:
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if mosquitto is None:
        pytest.skip("there is no mosquitto here; install it (the package is named mosquitto)")
    port = free_port()
    text = CONF.read_text()
    for theirs, ours in {
        "listener 1883": f"listener {port} {HOST}",
        "/mosquitto/data/": f"{tmp_path}/",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    conf = tmp_path / "mosquitto.conf"
    # Started by root, it would become a user who may not enter the test's folder.
    conf.write_text(f"{text}\nuser root\n")

    def accepts() -> bool:
        assert broker.poll() is None, broker.stdout.read().decode() if broker.stdout else ""
        try:
            # CONNECT of protocol 3.1.1 with a clean session and no name; 0x20 0x02 0x00 0x00 accepts it.
            with socket.create_connection((HOST, port), timeout=1) as client:
                client.sendall(bytes.fromhex("100c00044d51545404020000") + b"\0\0")
                return client.recv(4) == bytes.fromhex("20020000")
        except ConnectionRefusedError:
            return False

    with subprocess.Popen(
        [mosquitto, "-c", conf], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as broker:
        try:
            until(accepts, "mosquitto accepts a client")
        finally:
            end(broker)
