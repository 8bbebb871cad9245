"""What Dagster's storage says of an erased household is found and taken out of it."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from lake.landing import utc_now
from lake.redactions import ERASURE, Arrivals, Redaction, Redactions
from lake.store import LocalStore
from petwellness_orchestration import dagster_erasure
from petwellness_orchestration.dagster_erasure import (
    ValuesToErase,
    dagster_leftovers,
    erase_from_dagster,
    values_to_erase,
)
from petwellness_orchestration.instance import prepare_dagster_home
from petwellness_orchestration.settings import PlatformSettings, load_settings

ERASED = ("owner-1", "visit-7", "pet.1", "Ada Lovelace", "zoë@example.org")
SOUGHT = ValuesToErase(frozenset(ERASED))


@dg.op
def talk(context: dg.OpExecutionContext) -> dg.Output:
    print("captured: owner-1 and owner-12")
    context.log.warning("pets\nowner-1 (zoë@example.org) and owner-12")
    found = dg.MetadataValue.json({"first": ["owner-1: Ada Lovelace", "visit-7", "visit-77"]})
    context.log_event(dg.AssetMaterialization("pets", metadata={"found": found}))
    context.log_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("pets"),
            check_name="all_well",
            passed=True,
            metadata={"worst": "pet.1 pet-1"},
        )
    )
    return dg.Output(None, metadata={"of": "owner-1"})


@dg.job
def gossip() -> None:
    talk()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformSettings:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings()
    prepare_dagster_home(settings)
    return settings


def everything_said(settings: PlatformSettings) -> bytes:
    """All bytes of the instance's folder: databases with their logs, captured output."""
    folder = settings.state.home / "dagster"
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_an_id_is_found_whole_and_through_escapes() -> None:
    assert SOUGHT.erased('{"a": "x\\nowner-1\\\\nvisit-7", "b": "owner-12 my-owner-1"}') == (
        '{"a": "x\\nerased\\\\nerased", "b": "owner-12 my-owner-1"}'
    )
    assert SOUGHT.erased("zo\\u00eb@example.org, Ada Lovelace") == "erased, erased"


def test_every_place_is_found_and_cleaned_while_others_write(settings: PlatformSettings) -> None:
    home = str(settings.state.home / "dagster")
    with dg.DagsterInstance.from_config(home) as running:
        done = gossip.execute_in_process(instance=running, tags={"asked by": "owner-1", "of": "owner-12"})
        places = [one.place for one in dagster_leftovers(settings, SOUGHT)]
        for part in ("events event_logs", "asset_check_executions", "asset_keys", "run_tags", "runs", ".err"):
            assert any(part in place for place in places), (part, places)
        found = erase_from_dagster(settings, SOUGHT, dry_run=True)
        assert found > 0
        assert [one.place for one in dagster_leftovers(settings, SOUGHT)] == places

        assert erase_from_dagster(settings, SOUGHT, dry_run=False) == found
        assert dagster_leftovers(settings, SOUGHT) == []
        assert erase_from_dagster(settings, SOUGHT, dry_run=False) == 0

        # What is left is a log and an instance that work, which say the rest.
        run = running.get_run_by_id(done.run_id)
        assert run is not None
        assert (run.tags["asked by"], run.tags["of"]) == ("erased", "owner-12")
        [event] = running.fetch_materializations(dg.AssetKey("pets"), limit=1).records
        assert event.asset_materialization is not None
        said = event.asset_materialization.metadata["found"].value
        assert said == {"first": ["erased: erased", "erased", "visit-77"]}
        assert gossip.execute_in_process(instance=running).success
        erase_from_dagster(settings, SOUGHT, dry_run=False)
    left = everything_said(settings)
    assert b"owner-12" in left
    for value in ("Ada Lovelace", "zoë@example.org", "zo\\u00eb@", "asked by owner-1"):
        assert value.encode() not in left, value


def test_a_row_that_changed_meanwhile_keeps_what_it_says_now(
    settings: PlatformSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.from_config(str(settings.state.home / "dagster")) as running:
        run_id = gossip.execute_in_process(instance=running, tags={"asked by": "owner-1"}).run_id
        overwrite = dagster_erasure._overwrite_rows

        def after_a_change(*arguments: object) -> int:
            running.add_run_tags(run_id, {"seen": "yes"})
            return overwrite(*arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(dagster_erasure, "_overwrite_rows", after_a_change)
            erase_from_dagster(settings, SOUGHT, dry_run=False)
        run = running.get_run_by_id(run_id)
        assert run is not None
        assert run.tags["seen"] == "yes"
        erase_from_dagster(settings, SOUGHT, dry_run=False)
        run = running.get_run_by_id(run_id)
        assert run is not None
        assert (run.tags["seen"], run.tags["asked by"]) == ("yes", "erased")


def test_a_captured_file_is_overwritten_in_place(settings: PlatformSettings) -> None:
    folder = settings.state.home / "dagster/storage/run-1/compute_logs"
    folder.mkdir(parents=True)
    path = folder / "step.out"
    with path.open("a") as step:
        step.write("owner-1 zoë@example.org\n")
        step.flush()
        assert erase_from_dagster(settings, SOUGHT, dry_run=False) == 1
        step.write("goes on\n")
    assert path.read_text() == f"{'x' * 7} {'x' * 16}\ngoes on\n"


def test_an_entry_names_ids_of_everything_but_devices(tmp_path: Path) -> None:
    now = utc_now()
    entry = Redaction(
        redaction_id="r1",
        kind=ERASURE,
        reason="1",
        requested_at=now,
        deadline=now,
        owner_ids=["o1"],
        pet_ids=["p1"],
        business_keys={"clinic_visits": ["v1"]},
        arrivals=[Arrivals("c1", now, now + timedelta(days=1))],
    )
    assert values_to_erase(Redactions((entry,)), LocalStore(tmp_path)).values == {"o1", "p1", "v1"}
