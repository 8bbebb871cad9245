"""docs/operations.md and the alert rules name the metrics there are, with their kinds and labels."""

import re
from pathlib import Path

import yaml

from ingestion.collector.metrics import PREFIX, CollectorMetrics
from ingestion.collector.report import DrainReport
from lake.landing import utc_now

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
RULES = (ROOT / "infrastructure" / "monitoring" / "collector_alerts.yml").read_text()
RULE_TESTS = (ROOT / "infrastructure" / "monitoring" / "collector_alerts_test.yml").read_text()


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of every metric, by the name under which Prometheus knows it."""
    metrics = CollectorMetrics()
    metrics.follow(DrainReport(consent_built_at=utc_now(), lag_by_partition={("telemetry", 0): 1}))
    metrics.note_restart(ValueError())
    found = {}
    for family in metrics.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    return found


def test_the_table_lists_every_metric_and_no_other() -> None:
    rows = re.findall(rf"^\| `({PREFIX}\w+)(?:\{{([\w,]+)\}})?` \| (\w+) \|", PAGE, re.MULTILINE)
    listed = {name: (kind, {*labels.split(",")} - {""}) for name, labels, kind in rows}
    assert listed == exposed()


def test_rules_ask_for_metrics_that_there_are() -> None:
    known = exposed()
    with_parts = {f"{name}{part}" for name in known for part in ("", "_bucket", "_sum", "_count")}
    for text in (RULES, RULE_TESTS, PAGE):
        assert {*re.findall(rf"{PREFIX}\w+", text)} <= with_parts


def test_every_alert_has_a_test_and_says_what_to_do() -> None:
    [group] = yaml.safe_load(RULES)["groups"]
    tested = {
        case["alertname"] for one in yaml.safe_load(RULE_TESTS)["tests"] for case in one["alert_rule_test"]
    }
    assert tested == {rule["alert"] for rule in group["rules"]}
    for rule in group["rules"]:
        assert {"summary", "action"} <= rule["annotations"].keys()
