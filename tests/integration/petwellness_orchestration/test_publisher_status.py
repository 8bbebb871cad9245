"""A publisher's status outlives the process that wrote it."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from petwellness_orchestration import sources

DIES = (
    "import os, sys; from pathlib import Path; from petwellness_orchestration import sources\n"
    "with sources.publishing(Path(sys.argv[1])): os._exit(0)"
)


def test_a_publisher_that_died_is_an_error_once(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=True)
    # As it is when the id of the dead process has been given to another.
    path = tmp_path / sources.PUBLISHER_NAME
    left = msgspec.json.decode(path.read_bytes(), type=sources.PublisherStatus)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(left, pid=os.getppid())))
    with pytest.raises(sources.PublisherDiedError, match="start it again"):
        sources.publisher_is_through(tmp_path)
    assert sources.publisher_is_through(tmp_path)


def test_the_next_publisher_takes_the_place_of_one_that_died(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=True)
    with sources.publishing(tmp_path):
        assert not sources.publisher_is_through(tmp_path)
    assert sources.publisher_is_through(tmp_path)
