"""Thresholds as Great Expectations suites. The tables they judge come from dbt; asset checks wire them.

Great Expectations takes 5 to 10 s to import, so only `validate` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Widest values a living cat or dog shows on a daily mean; beyond them the sensor is wrong.
# Resting to racing pulse 30-300 bpm and rectal temperature 32-43 C cover hypothermia to
# heat stroke in both species (MSD Veterinary Manual, reference ranges and emergencies).
DAILY_ACTIVITY_RANGES: dict[str, tuple[float, float]] = {
    "total_steps": (0, 200_000),
    "total_licks": (0, 50_000),
    "pulse_bpm_mean": (30, 300),
    "body_temp_c_mean": (32, 43),
    "battery_min_pct": (0, 100),
    "observed_minutes": (0, 1440),
}


@dataclass(frozen=True)
class Range:
    """A column has to lie in [min_value, max_value]; null values are not judged."""

    column: str
    min_value: float | None
    max_value: float | None


@dataclass(frozen=True)
class RangeResult:
    """How many values of a column were judged and how many lay outside, with a few of them."""

    column: str
    judged: int
    outside: int
    examples: list[Any]

    @property
    def passed(self) -> bool:
        return self.outside == 0


def validate(frame: pd.DataFrame, ranges: list[Range]) -> list[RangeResult]:
    """Judge `frame` by `ranges` with Great Expectations, without a project folder or network."""
    import os

    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("warehouse")
        .add_dataframe_asset("table")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite(
        name="thresholds",
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=r.column, min_value=r.min_value, max_value=r.max_value
            )
            for r in ranges
        ],
    )
    results = batch.get_batch({"dataframe": frame}).validate(suite).results
    return [_result(r.column, found.result) for r, found in zip(ranges, results, strict=True)]


def _result(column: str, found: dict[str, Any]) -> RangeResult:
    judged = int(found["element_count"]) - int(found["missing_count"])
    return RangeResult(
        column, judged, int(found["unexpected_count"]), list(found.get("partial_unexpected_list", []))
    )
