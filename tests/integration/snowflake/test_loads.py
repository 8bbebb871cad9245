"""Raw loads on the emulator: COPY INTO from an S3 server, a stand-in for the pipes, the embedded loader as measure.

Executed here: every statement of `snowflake_raw`, `snowflake_redacting` and the COPY INTO of
the planned pipes. Not executed: what a real pipe is asked (`snowflake_pipes.SnowflakePipes`),
which `tests/unit/loading/test_snowflake_statements.py` parses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from ingestion.settings import SnowflakeSettings

from .stand_in import KEYS, Zone, landing_zone


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory, s3_endpoint):
    from infrastructure.snowflake_emulator.local import LocalEmulator

    with LocalEmulator(
        tmp_path_factory.mktemp("emulator"), Path("/work/wt/parity/build/snowflake_emulator")
    ) as running:
        running.use_s3(s3_endpoint, KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"])
        yield running


@pytest.fixture
def zone(emulator, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    from infrastructure.snowflake_emulator.objects import create_database

    def make_database(name: str, landing_url: str) -> SnowflakeSettings:
        with emulator.connect() as con:
            create_database(con, name, landing_url)
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in emulator.dbt_environment(name).items():
                patch.setenv(variable, value)
            return SnowflakeSettings()

    with landing_zone(s3_endpoint, tmp_path, make_database) as found:
        yield found


def test_what_pipes_brought_is_adopted_and_the_rest_copied(zone: Zone) -> None:
    zone.land(5)
    zone.land(4, rejected=2)
    zone.land_owners("day-1", ["o1", "o2"])
    assert zone.deliver(count=1) == 1
    report = zone.load()
    assert (report.adopted, report.copied, report.mended, report.waiting) == (1, 2, 0, 0)
    assert report.rows_by_feed == {"telemetry_events": 9, "owners": 2}
    assert zone.content() == zone.embedded_content()
    again = zone.load()
    assert (again.ranges, again.load_seq) == (0, report.load_seq)
