"""A publisher's status outlives the process that wrote it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from petwellness_orchestration import sources


def test_a_publisher_that_died_is_an_error_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from petwellness_orchestration import sources;"
        " sources.write_publisher_status(Path(sys.argv[1]), 'publishing')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=os.environ)
    with pytest.raises(sources.PublisherDiedError, match="start it again"):
        sources.publisher_is_through(tmp_path)
    assert sources.publisher_is_through(tmp_path)
