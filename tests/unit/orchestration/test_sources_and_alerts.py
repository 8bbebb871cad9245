"""Small parts between the libraries and the graph: statuses, cursors, alerts, published columns."""

import csv
from pathlib import Path
from typing import Any

import pytest

from petwellness_orchestration import sources
from petwellness_orchestration.alerts import AlertNotDeliveredError, failure_message, post_webhook


def test_nobody_publishing_means_nothing_to_wait_for(tmp_path: Path) -> None:
    assert sources.publisher_is_through(tmp_path)


def test_a_drain_waits_for_a_publisher_until_it_is_through(tmp_path: Path) -> None:
    sources.write_publisher_status(tmp_path, "publishing")
    assert not sources.publisher_is_through(tmp_path)
    sources.write_publisher_status(tmp_path, "landed")
    assert sources.publisher_is_through(tmp_path)
    sources.write_publisher_status(tmp_path, "live")
    assert sources.publisher_is_through(tmp_path)
    sources.clear_publisher_status(tmp_path)
    sources.clear_publisher_status(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_problems_are_written_row_by_row(tmp_path: Path) -> None:
    from ingestion.extracts.model import Problem

    problem = Problem(file="a.csv", row=3, reason="bad_year", detail='year "0", owner', set_aside=True)
    path = sources.write_problems(tmp_path / "home", [problem])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {
                "file": "a.csv",
                "row": "3",
                "reason": "bad_year",
                "detail": 'year "0", owner',
                "set_aside": "True",
            }
        ]
    # Written anew each time: what no longer is a problem is gone.
    sources.write_problems(tmp_path / "home", [])
    assert path.read_text().splitlines() == ["file,row,reason,detail,set_aside"]


@pytest.mark.parametrize(
    ("reason", "end"),
    [("boom\nTraceback ...", "boom"), ("  \n", "no reason given"), ("\n  first\nsecond", "first")],
)
def test_an_alert_is_one_line(reason: str, end: str) -> None:
    assert failure_message("nightly", "abc", reason) == f"run abc of job 'nightly' failed: {end}"


def test_an_alert_that_cannot_be_delivered_keeps_the_path_to_itself() -> None:
    with pytest.raises(
        AlertNotDeliveredError, match=r"127\.0\.0\.1:1 .*PETWELLNESS_ALERT_WEBHOOK_URL"
    ) as raised:
        post_webhook("http://127.0.0.1:1/services/secret", "text")
    assert "secret" not in str(raised.value)


def model(
    schema: str, name: str, columns: dict[str, dict[str, Any]], *tags: str, **meta: Any
) -> dict[str, Any]:
    return {
        "resource_type": "model",
        "schema": schema,
        "alias": name,
        "name": f"{schema}_{name}",
        "columns": columns,
        "tags": list(tags),
        "config": {"meta": meta, "materialized": "table"},
    }


def clustered(props: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    return {**props, "config": {**props["config"], "cluster_by": columns}}


def test_personal_columns_and_internal_schemas_are_not_published() -> None:
    from petwellness_orchestration.published import published_tables

    nodes = {
        "a": model("cur", "owners", {"owner_id": {}, "name": {"meta": {"pii": True}}}),
        "b": clustered(
            model("anl", "events", {"event_id": {}, "email": {"config": {"meta": {"pii": True}}}}, "daily"),
            ["event_date", "event_id", "cast(email as date)"],
        ),
        "c": model("stg", "owners", {"owner_id": {}}),
        "d": {**model("anl", "seed", {"x": {}}), "resource_type": "seed"},
        "f": {**model("anl", "rules", {"rule": {}}, published=True), "resource_type": "seed"},
        "g": model("anl", "steps_between", {"x": {}}, published=False),
        "e": model("ml", "features", {"pet_id": {}}, "daily", day_column="end_ts"),
    }
    found = {t.full_name: (t.columns, t.day_column, t.sorted_by) for t in published_tables({"nodes": nodes})}
    assert found == {
        "anl.events": (("event_id",), "event_date", ("event_id",)),
        "anl.rules": (("rule",), None, ()),
        "cur.owners": (("owner_id",), None, ()),
        "ml.features": (("pet_id",), "end_ts", ()),
    }
