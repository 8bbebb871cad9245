"""Half of a vendor rejected is no success: what checks and commands say of rejects and of unknown devices."""

import re
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from contracts.columns import ENVELOPE, record_schema
from contracts.records import canonical_json
from ingestion.collector.consent import OptOut
from lake.extract import land_extract
from lake.landing import list_manifests
from petwellness_orchestration.arrivals import WIDTH
from petwellness_orchestration.cli.app import app
from petwellness_orchestration.cli.runs import RunOutcome
from petwellness_orchestration.cli.steps import finish_collecting
from petwellness_orchestration.defs.raw.assets import devices_are_registered, rejects_are_few
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings

NOT_GIVEN = {field.name for field in ENVELOPE} | {"extracted_at"}
NEW_FORM = "lab/lab-v1@1: 60 of 120 messages (50.0 %); stops runs before the build"


@pytest.fixture
def vendor(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A new vendor with 120 messages: half are of a form that today's decoder does not know."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(lab.home))
    lab.land([lab.message(n, needs=1 + n % 2, device=f"d-{n % 2}{n % 3}") for n in range(120)])
    return lab


def land_devices(lab: Any, *rows: tuple[str, str]) -> None:
    """An extract of device records: id and operation."""
    columns = [*record_schema("devices")]
    content = [
        {"device_id": name, "business_key": name, "op": op, "changed_at": lab.start} for name, op in rows
    ]
    land_extract(
        lab.store,
        source="clinic-crm",
        feed="devices",
        extract_id=rows[0][0],
        table=pa.Table.from_pylist(
            [
                {
                    field.name: row.get(field.name, "{}" if field.name == "payload" else None)
                    for field in columns
                }
                for row in content
            ],
            pa.schema([field for field in columns if field.name not in NOT_GIVEN]),
        ),
        complete=False,
        extracted_at=lab.start,
    )


def evaluated(check: Any) -> tuple[dg.AssetCheckResult, dict[str, Any]]:
    result = check.op.compute_fn.decorated_fn(PlatformResource())
    return result, {name: value.value for name, value in result.metadata.items()}


def status() -> str:
    shown = CliRunner().invoke(app, ["status"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= max(
        WIDTH, len(re.findall(r"lake .*", shown.stdout)[0])
    )
    return " ".join(shown.stdout.split())


def test_a_new_vendor_stops_the_build_until_its_rejects_are_mended(vendor: Any) -> None:
    result, said = evaluated(rejects_are_few)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert said["reason"] == "50.0% of lab/lab-v1@1"
    assert said["sources"] == [NEW_FORM]
    assert said["examples"] == {"lab/lab-v1@1": ["version: made for a newer decoder"]}
    assert NEW_FORM in status()
    vendor.release(2)
    vendor.replay()
    # What the new version took is no reject any more, and nothing of it was lost.
    result, said = evaluated(rejects_are_few)
    assert result.passed
    assert said["sources"] == ["lab/lab-v1@1: 0 of 120 messages (0.0 %)"]
    assert vendor.rows().num_rows == 120


def test_rejects_that_a_person_accepts_stop_nothing(vendor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_REJECTS_ACCEPTED", "lab/lab-v1@1")
    assert evaluated(rejects_are_few)[0].passed
    assert "60 of 120 messages (50.0 %); accepted" in status()


def test_a_command_that_collected_half_a_vendor_ends_with_1(
    vendor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run itself has succeeded: everything is in the lake."""
    succeeded = RunOutcome(True, "run", {}, [])
    assert finish_collecting(succeeded, load_settings()) == 1
    shown = capsys.readouterr()
    assert NEW_FORM in " ".join(shown.out.split())
    assert "docs/runbooks/README.md" in shown.err
    vendor.land([vendor.message(n) for n in range(120, 2_000)])
    assert finish_collecting(succeeded, load_settings()) == 0
    assert "60 of 2,000 messages (3.0 %)" in " ".join(capsys.readouterr().out.split())


def test_payloads_of_opted_out_devices_and_ids_of_people_are_no_examples(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reject shows its field and the form of the value, and of an opted-out device no value at all."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(lab.home))
    lab.opt_out(OptOut("Refused", lab.start, None), name="s-1")
    fix = {"event_id": "1", "event_ts": "2026-06-01T00:00:00Z"}
    bad = [
        {**fix, "device_id": "collar-1", "pulse_bpm": "Anna 079"},
        {**fix, "device_id": "Refused", "pulse_bpm": "x"},
    ]
    good = {**fix, "device_id": "Anna Muster"}
    lab.land([canonical_json(row).encode() for row in (*bad * 50, good)], name="collar-v1")
    _, said = evaluated(rejects_are_few)
    assert said["examples"] == {
        "petwellness-collar/collar-v1@1": ['type: pulse_bpm is not a number: "**** ***"']
    }
    _, said = evaluated(devices_are_registered)
    assert said["reason"] == "1 events of 1 devices that nobody registered: **** ******"


def test_events_of_devices_that_nobody_registered_are_counted_and_named(vendor: Any) -> None:
    result, said = evaluated(devices_are_registered)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (said["events"], said["devices"]) == (60, 3)
    assert said["reason"] == "60 events of 3 devices that nobody registered: d-00, d-01, d-02"
    land_devices(vendor, ("d-00", "upsert"), ("d-02", "upsert"))
    assert "20 events of 1 devices that nobody registered: d-01" in status()
    # One that was registered once is not unknown.
    land_devices(vendor, ("d-01", "delete"))
    assert "devices all are registered" in status()
    assert evaluated(devices_are_registered)[0].passed
    assert len([m for m in list_manifests(vendor.store) if m.feed == "devices"]) == 2
