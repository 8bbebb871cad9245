"""The constants of alert rules, by version: who changes one adds a version and leaves the old one as it was."""

import csv

import pytest

from petwellness_orchestration.settings import DBT_PROJECT_DIR

CONSTANTS = (
    *("unit", "threshold", "clear_threshold", "window_hours", "baseline_hours", "min_window_minutes"),
    *("min_baseline_minutes", "raise_after_hours", "clear_after_hours", "expire_after_hours", "severity"),
)
KNOWN = {
    ("collar_dropout", "v1"): "events per hour,0,1,1,,,,6,1,24,warning",
    ("fever", "v1"): "degrees Celsius,39.2,38.9,1,,30,,4,4,24,critical",
    ("sudden_inactivity", "v2"): "percent of baseline,45,65,24,168,1152,4320,4,4,48,warning",
    ("excessive_licking", "v2"): "percent of baseline,180,140,24,168,1152,4320,4,4,48,warning",
    ("low_battery", "v1"): "percent,15,25,1,,,,2,1,24,info",
    ("overdue_vaccine", "v1"): "days,1,0,,,,,,,,info",
}


def rules() -> list[dict[str, str]]:
    with (DBT_PROJECT_DIR / "seeds" / "anl" / "anl_alert_rules.csv").open() as file:
        return list(csv.DictReader(file))


def test_constants_change_only_with_the_version() -> None:
    found = {(row["rule"], row["rule_version"]): ",".join(row[name] for name in CONSTANTS) for row in rules()}
    assert found == KNOWN, "a changed constant is a new row with the next version; add that here, too"


@pytest.mark.parametrize("row", rules(), ids=lambda row: f"{row['rule']}-{row['rule_version']}")
def test_a_rule_says_what_it_means_and_where_it_comes_from(row: dict[str, str]) -> None:
    assert row["severity"] in ("info", "warning", "critical")
    assert all(len(row[name]) > 10 for name in ("meaning", "source"))
