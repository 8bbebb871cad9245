"""What the catalogue of features says of a value, so that nobody has to read its SQL to use it."""

import csv

import pytest

from petwellness_orchestration.settings import DBT_PROJECT_DIR

# What a reader takes wrongly when it is not said: where a stretch may begin and end, what stands in the
# denominator, what a silent stretch is, what is fitted to what, by which year.
SAID = {
    "night_longest_rest_minutes": ("minutes", ("its start", "its end", "worn", "neither count nor end")),
    "coverage_24h": ("ratio", ("1440 minutes", "0 on a silent day", "at most 1")),
    "coverage_7d": ("ratio", ("10080 minutes", "0 when all were silent", "at most 1", "its own day")),
    "weight_trend_30d": (
        "kilograms per 30 days",
        ("least-squares", "times 30", "completed visit", "negative"),
    ),
    "age_years": ("years", ("365.25", "year of birth", "null outside 0 to 40")),
}


@pytest.fixture(scope="module")
def current() -> dict[str, dict[str, str]]:
    with (DBT_PROJECT_DIR / "seeds" / "ml" / "ml_feature_catalogue.csv").open() as file:
        return {row["feature_name"]: row for row in csv.DictReader(file) if row["status"] == "current"}


@pytest.mark.parametrize("name", SAID)
def test_the_catalogue_says_what_the_value_is(current: dict[str, dict[str, str]], name: str) -> None:
    unit, words = SAID[name]
    assert current[name]["unit"] == unit
    assert [word for word in words if word not in current[name]["meaning"]] == []
