"""Schedule and sensors by real ticks on an ephemeral instance; alerts to a real HTTP server."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pytest

from lake.extract import land_extract
from lake.store import LocalStore, StoreUnreachableError

pytestmark = pytest.mark.usefixtures("manifest")


@pytest.fixture(scope="module")
def definitions(manifest: Path) -> dg.Definitions:
    from petwellness_orchestration.definitions import build_definitions

    return build_definitions()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    return tmp_path


def land(home: Path, extract_id: str) -> None:
    """Land an extract without rows."""
    from contracts.columns import record_schema
    from lake.landing import FILLED_BY_CLAIM

    own = {*FILLED_BY_CLAIM, "kafka_offset", "arrival_ts", "extracted_at"}
    columns = [column for column in record_schema("clinics") if column.name not in own]
    land_extract(
        LocalStore(home / "lake"),
        source="clinic-crm",
        feed="clinics",
        extract_id=extract_id,
        table=pa.schema(columns).empty_table(),
        complete=False,
        extracted_at=datetime(2026, 6, 1),
    )


@pytest.mark.parametrize(
    ("tick", "day"),
    [
        # 03:00 in Zurich: in summer 01:00 UTC, in winter 02:00 UTC of the same day.
        (datetime(2025, 6, 15, 1, 0, tzinfo=UTC), "2025-06-14"),
        (datetime(2025, 12, 1, 2, 0, tzinfo=UTC), "2025-11-30"),
    ],
)
def test_the_nightly_tick_requests_one_run_for_all_dirty_days(
    definitions: dg.Definitions, instance: dg.DagsterInstance, tick: datetime, day: str
) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import EVENT_DAYS, days_to_build

    schedule = definitions.resolve_schedule_def("nightly")
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=tick, repository_def=definitions.get_repository_def()
    )
    result = schedule.evaluate_tick(context)
    assert result.run_requests is not None
    [request] = result.run_requests
    assert (request.partition_key, request.run_key) == (day, f"nightly-{day}")
    assert EVENT_DAYS.has_partition_key(day)
    tags = {**definitions.resolve_job_def("everything").tags, **request.tags}
    dirty = [date(2026, 6, 3), date(2026, 6, 1)]
    assert days_to_build(tags, [day], dirty) == (date(2026, 6, 1), date(2026, 6, 3))
    assert schedule.cron_schedule == "0 3 * * *"
    assert f"{tick.astimezone(ZoneInfo(schedule.execution_timezone)):%M %H}" == "00 03"


def job_origin(job_name: str) -> Any:
    """Where a launched run's job comes from; a queued run needs one."""
    from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(module_name="petwellness_orchestration.definitions")
    return RemoteRepositoryOrigin(InProcessCodeLocationOrigin(target), "petwellness").get_job_origin(job_name)


def sensor_tick(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> Any:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=definitions.get_repository_def()
    )
    return definitions.resolve_sensor_def("landing_sensor").evaluate_tick(context)


def run_of(
    definitions: dg.Definitions, instance: dg.DagsterInstance, tick: Any, *statuses: dg.DagsterRunStatus
) -> None:
    """The run that a tick requested, through these statuses, as the daemon and the run itself report them."""
    [request] = tick.run_requests
    job = definitions.resolve_job_def("refresh")
    run = instance.create_run_for_job(job, tags=dict(request.tags))
    kinds = {
        dg.DagsterRunStatus.STARTED: dg.DagsterEventType.PIPELINE_START,
        dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.PIPELINE_SUCCESS,
        dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.PIPELINE_FAILURE,
    }
    for status in statuses:
        instance.report_dagster_event(
            dg.DagsterEvent(event_type_value=kinds[status].value, job_name=job.name), run_id=run.run_id
        )


def test_the_landing_sensor_asks_until_a_refresh_has_succeeded(
    definitions: dg.Definitions, instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from petwellness_orchestration.defs.operations import jobs
    from petwellness_orchestration.defs.warehouse.partitions import EVENT_DAYS

    nothing = sensor_tick(definitions, instance, None)
    assert nothing.run_requests == []
    assert nothing.skip_message == "nothing has landed yet"

    land(home, "first")
    first = sensor_tick(definitions, instance, None)
    [request] = first.run_requests
    assert request.partition_key == EVENT_DAYS.get_last_partition_key()
    assert first.cursor is None

    run_of(definitions, instance, first, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE)
    later = sensor_tick(definitions, instance, first.cursor)
    assert (later.run_requests, later.cursor) == ([], None)
    assert later.skip_message.startswith("1 refreshes in a row failed; the next is at ")
    monkeypatch.setattr(jobs, "FIRST_RETRY_S", 0)
    again = sensor_tick(definitions, instance, first.cursor)
    assert len(again.run_requests) == 1
    # Dagster asks once for a key.
    assert again.run_requests[0].run_key != request.run_key

    run_of(definitions, instance, again, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS)
    through = sensor_tick(definitions, instance, again.cursor)
    assert (through.run_requests, through.skip_message) == ([], "what has landed is refreshed")
    same = sensor_tick(definitions, instance, through.cursor)
    assert (same.run_requests, same.skip_message) == ([], "nothing new has landed")

    land(home, "second")
    second = sensor_tick(definitions, instance, through.cursor)
    assert len(second.run_requests) == 1
    assert second.cursor == through.cursor


def test_a_refresh_that_fails_is_tried_later_and_later() -> None:
    from petwellness_orchestration.defs.operations.jobs import retry_wait_s

    assert [retry_wait_s(failures) for failures in (1, 2, 3, 7, 10)] == [60, 120, 240, 3600, 3600]


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(dg.DagsterRunStatus.QUEUED, id="QUEUED"),
        pytest.param(dg.DagsterRunStatus.STARTED, id="STARTED"),
        pytest.param(dg.DagsterRunStatus.STARTING, id="STARTING", marks=pytest.mark.full),
        pytest.param(dg.DagsterRunStatus.CANCELING, id="CANCELING", marks=pytest.mark.full),
    ],
)
def test_the_landing_sensor_waits_while_a_run_is_under_way(
    definitions: dg.Definitions, instance: dg.DagsterInstance, home: Path, status: dg.DagsterRunStatus
) -> None:
    land(home, "first")
    job = definitions.resolve_job_def("refresh")
    run = instance.create_run_for_job(job, status=status, remote_job_origin=job_origin(job.name))
    waits = sensor_tick(definitions, instance, None)
    assert waits.run_requests == []
    assert waits.skip_message == "a run is under way; what landed waits for the next tick"
    # The cursor stayed, so the landing is not forgotten once the run is through.
    assert waits.cursor is None
    instance.delete_run(run.run_id)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS)
    assert len(sensor_tick(definitions, instance, waits.cursor).run_requests) == 1


def test_a_run_that_never_ends_holds_up_the_landing_sensor_no_longer_than_a_run_may_take(
    definitions: dg.Definitions, instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(home, "first")
    instance.create_run_for_job(definitions.resolve_job_def("everything"), status=dg.DagsterRunStatus.STARTED)
    assert sensor_tick(definitions, instance, None).run_requests == []
    monkeypatch.setenv("PETWELLNESS_MAX_RUN_HOURS", "1e-9")
    assert len(sensor_tick(definitions, instance, None).run_requests) == 1


def test_the_landing_sensor_names_a_lake_it_cannot_use(
    definitions: dg.Definitions, instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_LAKE_URL", "ftp://nowhere")
    with pytest.raises(StoreUnreachableError, match=r"ftp://nowhere.*PETWELLNESS_LAKE_URL"):
        sensor_tick(definitions, instance, None)


class Webhook:
    """A server on 127.0.0.1 that keeps what is posted to it and answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.posts: list[tuple[str, str, Any]] = []
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/services/secret-path"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.stop()


@dg.op
def breaks() -> None:
    raise ValueError("the collar's table is gone")


@dg.job(name="nightly_test")
def failing_job() -> None:
    breaks()


def failure_context(instance: dg.DagsterInstance, job: dg.JobDefinition = failing_job) -> Any:
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    return dg.build_run_status_sensor_context(
        sensor_name="failure_alert",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()


def test_a_failed_run_is_logged_and_posted(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    home: Path,
    webhook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", webhook.url)
    context = failure_context(instance)
    capfd.readouterr()
    definitions.resolve_sensor_def("failure_alert")(context)
    message = f"run {context.dagster_run.run_id} of job 'nightly_test' failed: "
    [(path, content_type, body)] = webhook.posts
    assert (path, content_type) == ("/services/secret-path", "application/json")
    assert body.keys() == {"text"}
    assert body["text"].startswith(message)
    assert "\n" not in body["text"]
    assert "breaks" in body["text"]
    assert message in capfd.readouterr().err


def test_without_a_webhook_a_failed_run_is_logged_only(
    definitions: dg.Definitions, instance: dg.DagsterInstance, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = failure_context(instance)
    capfd.readouterr()
    definitions.resolve_sensor_def("failure_alert")(context)
    assert f"run {context.dagster_run.run_id} of job 'nightly_test' failed" in capfd.readouterr().err


def test_a_webhook_that_is_down_or_refuses_fails_the_tick(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from petwellness_orchestration.alerts import AlertNotDeliveredError

    sensor = definitions.resolve_sensor_def("failure_alert")
    context = failure_context(instance)
    refusing = Webhook(status=500)
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", refusing.url)
    with pytest.raises(AlertNotDeliveredError, match=r"127\.0\.0\.1.*500.*PETWELLNESS_ALERT_WEBHOOK_URL"):
        sensor(context)
    refusing.stop()
    with pytest.raises(AlertNotDeliveredError, match=r"127\.0\.0\.1") as down:
        sensor(context)
    # The path is the secret of most webhooks.
    assert "secret-path" not in str(down.value)
