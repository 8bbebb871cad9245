"""Small parts between the libraries and the graph: statuses, cursors, alerts, published columns."""

import csv
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from petwellness_orchestration import sources
from petwellness_orchestration.alerts import AlertNotDeliveredError, failure_message, post_webhook
from petwellness_orchestration.cli import expected_line
from petwellness_orchestration.settings import OperationsSettings


def test_nobody_publishing_means_nothing_to_wait_for(tmp_path: Path) -> None:
    assert sources.publisher_is_through(tmp_path)


def test_a_drain_waits_for_a_publisher_until_it_is_through(tmp_path: Path) -> None:
    with sources.publishing(tmp_path) as all_have_landed:
        assert not sources.publisher_is_through(tmp_path)
        with (
            pytest.raises(sources.PublisherRunsError, match=f"process {os.getpid()}.*stop it"),
            sources.publishing(tmp_path),
        ):
            pass
        assert not sources.publisher_is_through(tmp_path)
        all_have_landed()
        assert sources.publisher_is_through(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["publisher.lock"]


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
    address = SecretStr("http://127.0.0.1:1/services/geheim")
    with pytest.raises(
        AlertNotDeliveredError, match=r"127\.0\.0\.1:1 .*PETWELLNESS_ALERT_WEBHOOK_URL"
    ) as raised:
        post_webhook(address, "text")
    assert "geheim" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example/geheim",
        "http:///geheim",
        "//hooks.example/geheim",
        "ftp://hooks.example/geheim",
        "http://127.0.0.1:geheim/x",
        "http://geheim@127.0.0.1:1/geheim",
        "http://127.0.0.1:1/ge heim/geheim",
        "http://127.0.0.1:1/gehe\u0131m/geheim",
        "http://[geheim/x",
    ],
)
def test_an_address_that_cannot_be_posted_to_is_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", url)
    with pytest.raises(ValidationError, match="give https://host/path") as refused:
        OperationsSettings()
    line = expected_line(refused.value)
    assert line is not None
    assert "alert_webhook_url" in line
    for text in (line, "".join(traceback.format_exception(refused.value))):
        assert "geheim" not in text
    # Also one that got past the settings says nothing of it.
    with pytest.raises(AlertNotDeliveredError, match="PETWELLNESS_ALERT_WEBHOOK_URL") as failed:
        post_webhook(SecretStr(url), "text")
    assert "geheim" not in "".join(traceback.format_exception(failed.value))


def test_settings_do_not_show_the_address_of_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", "https://hooks.example/geheim")
    assert "geheim" not in repr(OperationsSettings()) + OperationsSettings().model_dump_json()
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", "")
    assert OperationsSettings().alert_webhook_url is None


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
