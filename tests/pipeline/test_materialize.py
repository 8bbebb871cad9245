"""What the Dagster UI launches: one asset of each shape alone, backfills, a check alone, a run again from its failure.

The requests are the UI's own GraphQL mutations, answered by dagster-graphql over the instance of a copied state
folder. Runs start in this process, where production queues them: what they execute is the same.
"""

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import duckdb
import pytest

from warehouse.ledger import WAREHOUSE_MARK

REPOSITORY = {"repositoryLocationName": "petwellness", "repositoryName": "__repository__"}
ONE_DAY = {"dagster/partition": "2026-06-02"}
TWO_DAYS = {
    "dagster/asset_partition_range_start": "2026-06-01",
    "dagster/asset_partition_range_end": "2026-06-02",
}
TODAY = {"dagster/partition": f"{datetime.now(UTC):%Y-%m-%d}"}
# Nothing landed on it.
ARRIVAL_DAY = {"dagster/partition": "2026-01-05"}

ASSETS = """
query {
  assetNodes {
    assetKey { path } isExecutable isPartitioned jobNames
    assetChecksOrError { ... on AssetChecks { checks { name canExecuteIndividually } } }
  }
}
"""
# What the UI adds to a selection, with a word to the person: the other tables that the same step writes.
REQUIRED = "query($keys: [AssetKeyInput!]!) { assetNodeAdditionalRequiredKeys(assetKeys: $keys) { path } }"
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
  }
}
"""
AGAIN = """
mutation($params: ReexecutionParams!) {
  launchPipelineReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True)
class Ended:
    """A run as it ended: what it materialized (asset, partition), its checks, and what its first failure said."""

    run: dg.DagsterRun
    materialized: set[tuple[str, str | None]]
    checks: dict[str, bool]
    error: str

    @property
    def succeeded(self) -> bool:
        return self.run.is_success


class Ui:
    """The UI's requests, and what became of the runs."""

    def __init__(self, process: Any, home: Path) -> None:
        self.process = process
        self.home = home
        self.instance: dg.DagsterInstance = process.instance

    def ask(self, text: str, **variables: Any) -> Any:
        from dagster_graphql.test.utils import execute_dagster_graphql

        [answer] = execute_dagster_graphql(
            self.process.create_request_context(), text, variables
        ).data.values()
        return answer

    def materialize(
        self,
        *assets: str,
        tags: Mapping[str, str] | None = None,
        checks: Sequence[tuple[str, str]] | None = None,
        job: str = "__ASSET_JOB",
    ) -> Ended:
        """As the button does; with `checks` (asset, name) and no asset as the one that executes checks."""
        selection = [self._key(asset) for asset in assets]
        selection += [{"path": key["path"]} for key in self.ask(REQUIRED, keys=selection)]
        selector = {"jobName": job, **REPOSITORY, "assetSelection": selection}
        if checks is not None:
            selector["assetCheckSelection"] = [
                {"assetKey": self._key(asset), "name": name} for asset, name in checks
            ]
        params = {
            "mode": "default",
            "runConfigData": "{}",
            "selector": selector,
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in (tags or {}).items()]},
        }
        return self._launched(self.ask(LAUNCH, params=params))

    def again_from_failure(self, ended: Ended) -> Ended:
        return self._launched(
            self.ask(AGAIN, params={"parentRunId": ended.run.run_id, "strategy": "FROM_FAILURE"})
        )

    def backfill(self, *assets: str, days: Sequence[str]) -> list[Ended]:
        """As the button does for several days; the daemon's part is done here until the backfill has ended."""
        from dagster._daemon.backfill import execute_backfill_iteration

        selection = [self._key(asset) for asset in assets]
        params = {"assetSelection": selection, "partitionNames": [*days], "fromFailure": False, "tags": []}
        launched = self.ask(BACKFILL, params=params)
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill_id = launched["backfillId"]
        for _ in range(10):
            list(execute_backfill_iteration(self.process, logging.getLogger("backfill")))
            found = self.instance.get_backfill(backfill_id)
            assert found
            if found.status.name not in ("REQUESTED", "CANCELING"):
                break
        assert found.status.name == "COMPLETED_SUCCESS", found.error
        runs = self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        return [self.ended(run.run_id) for run in reversed(runs)]

    def ended(self, run_id: str) -> Ended:
        run = self.instance.get_run_by_id(run_id)
        assert run
        materialized, checks, error = set(), {}, ""
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                assert event.asset_key
                materialized.add((event.asset_key.to_user_string(), event.partition))
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                checks[evaluation.check_name] = evaluation.passed
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE and not error:
                raised = event.step_failure_data.error
                while raised is not None and raised.cause is not None:
                    raised = raised.cause
                error = raised.message if raised else ""
        return Ended(run, materialized, checks, error)

    def rows(self, sql: str) -> list[Any]:
        with duckdb.connect(str(self.home / "warehouse.duckdb")) as con:
            return con.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        with duckdb.connect(str(self.home / "warehouse.duckdb")) as con:
            con.execute(sql)

    def _launched(self, answer: Any) -> Ended:
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return self.ended(answer["run"]["runId"])

    @staticmethod
    def _key(asset: str) -> dict[str, list[str]]:
        return {"path": asset.split("/")}


@contextmanager
def opened(home: Path, module_name: str) -> Iterator[Ui]:
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

    from petwellness_orchestration.instance import prepare_dagster_home
    from petwellness_orchestration.settings import load_settings

    # The instance of the folder, but for who starts its runs.
    here = {
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
        "run_launcher": {
            "module": "dagster._core.launcher.sync_in_memory_run_launcher",
            "class": "SyncInMemoryRunLauncher",
        },
    }
    folder = prepare_dagster_home(load_settings())
    code = LoadableTargetOrigin(
        executable_path=sys.executable,
        module_name=module_name,
        attribute="DEFINITIONS",
        working_directory=os.getcwd(),
    )
    origin = InProcessCodeLocationOrigin(code, location_name="petwellness")
    with (
        dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=here)) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget([origin])) as process,
    ):
        yield Ui(process, home)


@pytest.fixture(scope="module")
def ui(demo_state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    assert demo_state.returncode == 0, demo_state.stderr
    home = tmp_path_factory.mktemp("materialize") / "home"
    shutil.copytree(demo_state.home, home)
    own = {key: value for key, value in demo_state.environment.items() if key.startswith("PETWELLNESS_")}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**own, "PETWELLNESS_HOME": str(home)}.items():
            patched.setenv(name, value)
        # Of the folder that the demo ran in, which its instance names.
        patched.delenv("DAGSTER_HOME", raising=False)
        from petwellness_orchestration.definitions import build_definitions

        # Loaded once: from its own module Dagster builds the definitions anew for each run.
        loaded = ModuleType("petwellness_loaded_once")
        loaded.DEFINITIONS = build_definitions()  # type: ignore[attr-defined]
        patched.setitem(sys.modules, loaded.__name__, loaded)
        with opened(home, loaded.__name__) as found:
            yield found


def marks(ui: Ui) -> dict[str, int]:
    """What is remembered as built; what was published, publishing may move."""
    return dict(ui.rows("select mark, load_seq from raw.build_marks where mark <> 'published'"))


@pytest.mark.parametrize(
    ("asset", "tags"),
    [
        ("anl/wellness_alerts", None),  # kept whole, reads tables that are kept by day
        # A dimension, with a test that reads days; the short suite builds it in the run that is run again.
        pytest.param("anl/clinics", None, marks=pytest.mark.full),
        ("cur/pets", None),  # made of records, by what loads touched
        ("anl/alert_rules", None),  # a seed
        # As `anl/pet_daily_summary` below, with a check by Great Expectations, which take 5 s of a core to import.
        pytest.param("anl/device_daily_heartbeat", ONE_DAY, marks=pytest.mark.full),
        ("stg/telemetry_days", TWO_DAYS),
        ("landing/owners", None),
        ("landing/telemetry_compacted", ARRIVAL_DAY),
        ("raw/owners", None),
        ("raw/lake_files", None),
        ("ml/visit_risk_champion", None),
        ("published/warehouse_tables", None),
        ("cold/anl/telemetry_events", ONE_DAY),
    ],
)
def test_one_asset_of_each_shape_can_be_materialized_alone(
    ui: Ui, asset: str, tags: Mapping[str, str] | None
) -> None:
    before = marks(ui)
    ended = ui.materialize(asset, tags=tags)
    assert ended.succeeded, ended.error
    assert asset in {key for key, _ in ended.materialized}
    # Nothing was built that a partial run could vouch for, and nothing new had landed.
    assert marks(ui) == before
    if tags == TWO_DAYS:
        assert ended.materialized == {(asset, "2026-06-01"), (asset, "2026-06-02")}
    elif tags == ONE_DAY and asset.startswith("anl"):
        assert ended.materialized == {(asset, "2026-06-02")}


def test_a_selection_of_tables_by_day_and_whole_ones_is_one_run(ui: Ui) -> None:
    ended = ui.materialize("anl/pet_daily_summary", "anl/pets", tags=ONE_DAY)
    assert ended.succeeded, ended.error
    assert ended.materialized == {("anl/pet_daily_summary", "2026-06-02"), ("anl/pets", None)}
    # Days of another step are none of this one's.
    ended = ui.materialize("anl/pets", "cold/anl/telemetry_events", tags=ONE_DAY)
    assert ended.succeeded, ended.error


@pytest.mark.parametrize(
    ("asset", "tags", "said"),
    [
        ("landing/telemetry_events", None, "no embedded broker runs for .*; start one"),
        ("landing/telemetry_compacted", None, "names none. Choose days .* or run `petwellness compact`"),
        ("landing/telemetry_compacted", TODAY, "Wait, or `petwellness compact --day .* --even-if-open`"),
    ],
)
def test_what_cannot_be_made_says_what_to_do(
    ui: Ui, asset: str, tags: Mapping[str, str] | None, said: str
) -> None:
    ended = ui.materialize(asset, tags=tags)
    assert not ended.succeeded
    assert re.search(said, ended.error), ended.error


def test_what_is_built_alone_stays_for_the_next_build_and_in_the_present_of_the_last(ui: Ui) -> None:
    """A load has come: tables that are built alone neither take its days as built nor its time as theirs."""
    before = marks(ui)
    kpis = ui.rows("from anl.clinic_kpis order by all")
    days = "select distinct unnest(event_dates) from raw.load_history"
    ui.execute(
        "insert into raw.load_history select * replace ('later' as stream_id, 2 as load_seq)"
        " from raw.load_history where feed = 'telemetry_events' limit 1;"
        "insert into raw.owners select * replace ('later' as stream_id, arrival_ts + interval 90 day as arrival_ts)"
        " from raw.owners limit 1"
    )
    try:
        assert ui.materialize("anl/clinic_kpis").succeeded
        assert marks(ui) == before
        assert ui.rows("from anl.clinic_kpis order by all") == kpis
        assert ui.rows(f"{days} where load_seq > {before[WAREHOUSE_MARK]}")
    finally:
        ui.execute(
            "delete from raw.load_history where stream_id = 'later'; delete from raw.owners where stream_id = 'later'"
        )


def test_a_backfill_of_two_days_builds_them_once_and_what_is_kept_whole_with_them(ui: Ui) -> None:
    days = ["2026-06-01", "2026-06-02"]
    runs = ui.backfill("anl/daily_activity", "anl/clinic_kpis", days=days)
    assert [run.error for run in runs] == [""] * len(runs)
    materialized = [found for run in runs for found in sorted(run.materialized, key=str)]
    assert sorted(materialized, key=str) == sorted(
        [("anl/clinic_kpis", None), *(("anl/daily_activity", day) for day in days)], key=str
    )


def checked_alone(ui: Ui, asset: str, check: str) -> Ended:
    """A check that was executed, and nothing else: no table is built."""
    before = ui.rows("select count(*), max(started_at) from ops.builds")
    ended = ui.materialize(checks=[(asset, check)])
    assert ended.succeeded, ended.error
    assert (ended.materialized, [*ended.checks]) == (set(), [check])
    assert ui.rows("select count(*), max(started_at) from ops.builds") == before
    return ended


@pytest.mark.parametrize(
    ("asset", "check"),
    [
        ("anl/clinics", "star_keys_have_dimensions"),
        ("published/warehouse_tables", "tables_are_fresh"),
        ("cold/anl/telemetry_events", "moved_days_are_kept"),
    ],
)
def test_a_check_alone_builds_nothing_and_looks_at_every_day(ui: Ui, asset: str, check: str) -> None:
    from petwellness_orchestration.defs.warehouse.partitions import looks_at_every_day

    assert looks_at_every_day(checked_alone(ui, asset, check).run)


@pytest.mark.full
def test_a_check_alone_judges_the_rows_of_every_day(ui: Ui) -> None:
    [(judged,)] = ui.rows("select count(*) from anl.device_daily_heartbeat where heartbeat_ratio is not null")
    checked_alone(ui, "anl/device_daily_heartbeat", "device_heartbeat")
    event = ui.instance.get_latest_asset_check_evaluation_record(
        dg.AssetCheckKey(dg.AssetKey(["anl", "device_daily_heartbeat"]), "device_heartbeat")
    )
    assert event is not None
    assert event.event.dagster_event.asset_check_evaluation_data.metadata["judged"].value == judged


def test_a_run_again_from_its_failure_does_what_was_left(ui: Ui) -> None:
    selected = ("landing/catalogue", "anl/clinics", "published/warehouse_tables")
    ui.execute("alter table cur.clinics rename to clinics_away")
    try:
        failed = ui.materialize(*selected)
        assert not failed.succeeded
        assert "anl_clinics" in failed.error
        assert failed.materialized == {("landing/catalogue", None)}
    finally:
        ui.execute("alter table cur.clinics_away rename to clinics")
    again = ui.again_from_failure(failed)
    assert again.succeeded, again.error
    assert again.materialized == {("anl/clinics", None), ("published/warehouse_tables", None)}


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_every_asset_and_every_check_of_the_graph_alone(ui: Ui) -> None:
    """All but the drain, which needs a broker."""
    failures = {}
    for node in ui.ask(ASSETS):
        asset = "/".join(node["assetKey"]["path"])
        if not node["isExecutable"] or asset == "landing/telemetry_events":
            continue
        tags = ARRIVAL_DAY if asset == "landing/telemetry_compacted" else ONE_DAY
        ended = ui.materialize(asset, tags=tags if node["isPartitioned"] else None)
        if not ended.succeeded or asset not in {key for key, _ in ended.materialized}:
            failures[asset] = ended.error
        for check in node["assetChecksOrError"].get("checks", []):
            if check["canExecuteIndividually"] != "CAN_EXECUTE" or asset == "landing/telemetry_compacted":
                continue
            ended = ui.materialize(checks=[(asset, check["name"])])
            if not ended.succeeded or not ended.checks:
                failures[f"{asset}:{check['name']}"] = ended.error
    assert failures == {}
