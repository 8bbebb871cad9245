"""The example alert rules, judged by Prometheus' own tool."""

import shutil
import subprocess
from pathlib import Path

import pytest

MONITORING = Path(__file__).resolve().parents[3] / "infrastructure" / "monitoring"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("there is no promtool here; install it (Debian's package prometheus has it)")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=MONITORING, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", "collector_alerts.yml")


def test_each_situation_raises_its_alert(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", "collector_alerts_test.yml")


def test_prometheus_of_the_compose_file_is_configured_in_its_language(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "config", "prometheus.yml")
