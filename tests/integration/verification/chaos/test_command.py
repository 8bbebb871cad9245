"""`python -m verification.chaos` as a command."""

import json
from pathlib import Path

import pytest

from verification.chaos.__main__ import main
from verification.chaos.scenarios import ALL


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [one.name for one in ALL]


def test_an_unknown_scenario_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_run_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "chaos.json"
    chosen = ["--broker", "embedded", "--scenario", "manifest-crash-before"]
    assert main([*chosen, "--messages", "300", "--output", str(output)]) == 0
    assert "1 scenarios, 0 failed" in capsys.readouterr().out
    document = json.loads(output.read_text())
    [scenario] = document["scenarios"]
    assert document["summary"]["failed"] == 0
    assert scenario["scenario"] == "manifest-crash-before"
    assert scenario["broker"] == "embedded"
    assert scenario["kill_points"] == {"put manifest: crash before": 3}
    assert (scenario["missing"], scenario["duplicated"], scenario["passed"]) == (0, 0, True)
    assert scenario["records"] >= 300
