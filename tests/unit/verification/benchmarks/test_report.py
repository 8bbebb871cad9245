"""How benchmark figures meet their aims and how results of several runs come together."""

import json
from pathlib import Path

import pytest

from verification.benchmarks import report

MACHINE = {"cores": 2, "python": "3.11.7"}


def section(**figures: float) -> dict[str, object]:
    return {"commit": "abc1234", "load_1m": 0.1, "figures": figures}


@pytest.mark.parametrize(
    ("aim", "value", "met"),
    [
        (report.Aim("collector", "ratio", "times", at_least=4.0), 4.0, True),
        (report.Aim("collector", "ratio", "times", at_least=4.0), 3.99, False),
        (report.Aim("demo", "wall_s", "s", at_most=120), 120, True),
        (report.Aim("demo", "wall_s", "s", at_most=120), 120.1, False),
    ],
)
def test_an_aim_is_met_up_to_and_including_its_bound(aim: report.Aim, value: float, met: bool) -> None:
    assert aim.is_met(value) is met


def test_only_what_was_measured_is_judged() -> None:
    judged = report.judged({"demo": section(wall_s=150.0)})
    assert [(j["benchmark"], j["figure"], j["met"]) for j in judged] == [("demo", "wall_s", False)]


def test_a_fresh_section_replaces_its_own_and_keeps_the_others() -> None:
    before = report.merged({}, MACHINE, {"simulator": section(events_per_s=1), "demo": section(wall_s=1)})
    after = report.merged(before, MACHINE, {"demo": section(wall_s=2)})
    assert after["benchmarks"]["simulator"]["figures"] == {"events_per_s": 1}
    assert after["benchmarks"]["demo"]["figures"] == {"wall_s": 2}


def test_figures_of_another_machine_are_dropped() -> None:
    before = report.merged({}, {**MACHINE, "cores": 64}, {"simulator": section(events_per_s=1)})
    after = report.merged(before, MACHINE, {"demo": section(wall_s=2)})
    assert list(after["benchmarks"]) == ["demo"]


def test_the_document_survives_its_file_and_prints_every_figure(tmp_path: Path) -> None:
    nested = {"commit": "abc1234", "load_1m": 0.1, "figures": {"stage_s": {"publish": 4.6}, "wall_s": 121.5}}
    document = report.merged({}, MACHINE, {"demo": nested})
    report.write(tmp_path / "results" / "latest.json", document)
    assert report.read(tmp_path / "results" / "latest.json") == json.loads(json.dumps(document))
    text = "\n".join(report.lines(document))
    assert "stage_s: publish" in text
    assert "MISSED  demo wall_s" in text
