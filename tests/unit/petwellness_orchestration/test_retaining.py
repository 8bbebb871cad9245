"""Which tables have a retention limit: the project's own, and what the models must not state."""

from typing import Any

import pytest

from petwellness_orchestration.retaining import RetentionPolicyError, limited_tables, tiered_tables


def model(
    name: str, depends_on: tuple[str, ...] = (), tags: tuple[str, ...] = ("daily",), **meta: Any
) -> Any:
    return {
        "resource_type": "model",
        "name": name,
        "schema": "anl",
        "alias": name.removeprefix("anl_"),
        "tags": list(tags),
        "checksum": {"checksum": "c0ffee"},
        "config": {"meta": meta, "cluster_by": ["event_date"]},
        "depends_on": {"nodes": [f"model.petwellness.{one}" for one in depends_on]},
    }


def manifest(*models: Any) -> dict[str, Any]:
    return {"nodes": {f"model.petwellness.{one['name']}": one for one in models}}


HOT = {"tier": "hot", "days": 90}


def test_events_stay_90_days() -> None:
    found = {table.full_name: (table.tier, table.days) for table in limited_tables()}
    assert found["anl.telemetry_events"] == ("hot", 90)
    # Hourly summaries, where the project has them, stay a year.
    assert found.get("anl.telemetry_summary_hourly", ("warm", 365)) == ("warm", 365)
    assert len(found) <= 2


def test_a_limit_is_read_with_what_the_files_need() -> None:
    [table] = tiered_tables(manifest(model("anl_events", retention=HOT), model("anl_daily", ("anl_events",))))
    assert (table.full_name, table.tier, table.days) == ("anl.events", "hot", 90)
    assert (table.order, table.model, table.day_column) == (("event_date",), "c0ffee", "event_date")


@pytest.mark.parametrize(
    "stated",
    [
        {"days": 90},
        {"tier": "hot"},
        {"tier": "hot", "days": 0},
        {"tier": "hot", "days": "90"},
        {"tier": "cold", "days": 90},
        {"tier": "hot", "days": 90, "keep": 1},
    ],
)
def test_a_limit_that_says_something_else_is_refused(stated: dict[str, Any]) -> None:
    with pytest.raises(RetentionPolicyError, match=r"anl_events: retention .* is not understood"):
        tiered_tables(manifest(model("anl_events", retention=stated)))


def test_a_table_that_is_not_kept_by_day_has_no_limit() -> None:
    with pytest.raises(RetentionPolicyError, match="anl_events is not kept by day"):
        tiered_tables(manifest(model("anl_events", tags=(), retention=HOT)))


@pytest.mark.parametrize(
    ("reader", "problem"),
    [
        (model("anl_all", ("anl_events",), tags=()), "anl_all is built from all days"),
        (model("anl_month", ("anl_events",), window_days=30), "anl_month reads 30 days for one"),
    ],
)
def test_a_model_that_would_miss_moved_days_is_refused(reader: Any, problem: str) -> None:
    events = model("anl_events", retention=HOT)
    with pytest.raises(RetentionPolicyError, match=problem):
        tiered_tables(manifest(events, reader))
