"""Settings from the environment, and from a run's tags and partitions to the days it builds."""

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from petwellness_orchestration.settings import load_settings
from petwellness_orchestration.sources import UncollectedTopicError, check_collected


def test_defaults_are_the_embedded_platform_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.environment.name == "embedded"
    assert settings.is_broker_embedded
    assert settings.state.home == tmp_path / ".petwellness"
    assert settings.lake.resolved_url(settings.state.home) == str(tmp_path / ".petwellness" / "lake")
    assert settings.source.data is None
    assert not settings.has_automation
    assert list(tmp_path.iterdir()) == []


def test_a_home_zone_that_is_none_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_TIMEZONE", "Europe/Atlantis")
    with pytest.raises(ValidationError, match="set PETWELLNESS_TIMEZONE"):
        load_settings()


def test_the_default_fleet_is_as_large_as_promised() -> None:
    source = load_settings().source
    assert source.fleet_collars >= 120
    assert source.fleet_households >= 100
    assert source.fleet_clinics >= 6
    assert source.fleet_days >= 14
    assert source.fleet_collars * source.fleet_days * 1440 >= 2_400_000


def test_the_collector_reads_the_collars_topic_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().topics == ("telemetry",)
    # Into an embedded broker real files are replayed by this platform and by nobody else.
    monkeypatch.setenv("PETWELLNESS_DATA", "files")
    assert load_settings().topics == ("telemetry", "telemetry.campusiot", "telemetry.movebank")
    check_collected(load_settings())
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert load_settings().topics == ("telemetry",)
    with pytest.raises(
        UncollectedTopicError, match=r"TOPICS=telemetry,telemetry\.campusiot,telemetry\.movebank"
    ):
        check_collected(load_settings())
    monkeypatch.setenv("PETWELLNESS_COLLECTOR_TOPICS", "telemetry.movebank , telemetry.campusiot")
    assert load_settings().topics == ("telemetry.movebank", "telemetry.campusiot")
    check_collected(load_settings())


@pytest.mark.parametrize("value", ["telemetry,telemetry.typo", ""])
def test_a_topic_that_no_decoder_reads_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_COLLECTOR_TOPICS", value)
    with pytest.raises(
        ValidationError, match=r"no decoder reads (telemetry\.typo|no topic); give some of telemetry, "
    ):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PETWELLNESS_FLEET_DAYS", "0"),
        ("PETWELLNESS_HEARTBEAT_MIN_RATIO", "1.5"),
        ("PETWELLNESS_COLLECTOR_ROTATE_ROWS", "many"),
        ("PETWELLNESS_KAFKA_CONNECT_TIMEOUT_S", "31"),
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from petwellness_orchestration.cli import expected_line

    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as raised:
        load_settings()
    line = expected_line(raised.value)
    assert line is not None
    assert "\n" not in line
    # The last words of the variable are the field's.
    assert name.lower().split("_", 2)[2] in line.replace(".", "_")


def test_kafka_settings_mean_a_broker_that_is_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert not load_settings().is_broker_embedded


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("PETWELLNESS_LAKE_SECRET_ACCESS_KEY", "hunter3")
    assert "hunter" not in repr(load_settings())


def test_dagsters_database_names_its_driver_and_a_refusal_keeps_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PETWELLNESS_DAGSTER_POSTGRES_URL", "postgresql://dagster:geheim@127.0.0.1/dagster")
    with pytest.raises(ValidationError, match="postgresql\\+psycopg2") as refused:
        load_settings()
    assert "geheim" not in str(refused.value)
    monkeypatch.setenv("PETWELLNESS_DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster@127.0.0.1/dagster")
    assert load_settings().operations.dagster_postgres_url


def test_real_data_goes_to_a_state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from petwellness_orchestration.cli.environment import use_data

    monkeypatch.chdir(tmp_path)
    # Set and removed again, so that monkeypatch forgets what use_data sets.
    for name in ("PETWELLNESS_DATA", "PETWELLNESS_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    use_data(None)
    assert "PETWELLNESS_DATA" not in os.environ
    (tmp_path / "files").mkdir()
    use_data(Path("files"))
    settings = load_settings()
    assert settings.source.data == tmp_path / "files"
    assert settings.state.home == tmp_path / ".petwellness" / "real"


def test_a_stated_home_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from petwellness_orchestration.cli.environment import use_data

    monkeypatch.setenv("PETWELLNESS_DATA", "")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "mine"))
    use_data(tmp_path)
    assert load_settings().state.home == tmp_path / "mine"


DAYS = st.dates(date(2017, 1, 1), date(2027, 1, 1))


@given(st.lists(DAYS), st.lists(DAYS, unique=True))
def test_a_dirty_run_builds_the_dirty_days_and_nothing_else(dirty: list[date], keys: list[date]) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import DIRTY_TAGS, days_to_build

    built = days_to_build({**DIRTY_TAGS, "other": "tag"}, [day.isoformat() for day in keys], dirty)
    assert built == tuple(sorted(set(dirty)))


@given(st.lists(DAYS), st.lists(DAYS, unique=True))
def test_a_backfill_builds_exactly_its_partitions(dirty: list[date], keys: list[date]) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import days_to_build

    assert days_to_build({}, [day.isoformat() for day in keys], dirty) == tuple(sorted(keys))
    other: dict[str, Any] = {"petwellness/scope": "all"}
    assert days_to_build(other, [day.isoformat() for day in keys], dirty) == tuple(sorted(keys))


@given(st.lists(DAYS), st.lists(DAYS, unique=True, min_size=1))
def test_a_backfill_of_a_job_builds_its_partitions_and_not_what_is_dirty(
    dirty: list[date], keys: list[date]
) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import DIRTY_TAGS, days_to_build

    tags = {**DIRTY_TAGS, "dagster/backfill": "abcdefgh"}
    assert days_to_build(tags, [day.isoformat() for day in keys], dirty, ["anl/x"]) == tuple(sorted(keys))


@given(st.lists(DAYS))
def test_a_run_without_partitions_builds_no_day_and_nothing_that_is_kept_by_day(dirty: list[date]) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import days_to_build
    from petwellness_orchestration.named_days import PartitionsMissingError

    assert days_to_build({}, [], dirty) == ()
    with pytest.raises(PartitionsMissingError, match=r"anl/a, anl/b: kept by day, .* run the job `refresh`"):
        days_to_build({}, [], dirty, ["anl/b", "anl/a"])


@pytest.mark.parametrize(
    ("assets", "checks", "tags", "every_day"),
    [
        (None, None, {}, False),
        (None, None, {"petwellness/scope": "all"}, True),
        ({"anl/pets"}, None, {}, False),
        ({"anl/pets"}, {"a_check"}, {}, False),
        (set(), {"a_check"}, {}, True),
    ],
)
def test_checks_of_a_run_that_builds_nothing_look_at_every_day(
    assets: set[str] | None, checks: set[str] | None, tags: dict[str, str], every_day: bool
) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import looks_at_every_day

    key = dg.AssetKey(["anl", "pets"])
    run = dg.DagsterRun(
        job_name="job",
        tags=tags,
        asset_selection=None if assets is None else {key for _ in assets},
        asset_check_selection=None if checks is None else {dg.AssetCheckKey(key, name) for name in checks},
    )
    assert looks_at_every_day(run) is every_day


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 6, 15, 0, 0, tzinfo=UTC), "2026-06-14"),
        (datetime(2026, 6, 15, 23, 59, 59, tzinfo=UTC), "2026-06-14"),
        (datetime(2026, 3, 1, 3, 0, tzinfo=UTC), "2026-02-28"),
        (datetime(2024, 3, 1, 3, 0, tzinfo=UTC), "2024-02-29"),
        (datetime(2026, 1, 1, 2, 0, tzinfo=UTC), "2025-12-31"),
    ],
)
def test_the_latest_ended_day_is_yesterday_in_utc(moment: datetime, day: str) -> None:
    from petwellness_orchestration.defs.operations.jobs import latest_ended_day

    assert latest_ended_day(moment.timestamp()) == day


def test_dbt_is_told_the_days_and_the_present() -> None:
    from petwellness_orchestration.defs.warehouse.dbt_run import dbt_variables

    assert dbt_variables(
        (date(2026, 6, 1), date(2026, 6, 2)), datetime(2026, 6, 3, 4, 5, 6, 7), "run", 8
    ) == {
        "run_id": "run",
        "build_seq": 8,
        "dirty_days": ["2026-06-01", "2026-06-02"],
        "as_of_ts": "2026-06-03 04:05:06",
    }
    assert dbt_variables(None, None, "run")["dirty_days"] is None
    assert dbt_variables((), None, "run", 1, tests_every_day=True)["tested_days"] is None
    assert dbt_variables((), None, "run", 1) == {
        "run_id": "run",
        "build_seq": 1,
        "dirty_days": [],
        "as_of_ts": None,
    }
