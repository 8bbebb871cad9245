"""The same graph on real files: the demo's figures equal an independent computation; nothing is dropped in silence."""

import csv
import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from realdata_sample import write_sample

Petwellness = Callable[..., Any]


@pytest.fixture(scope="module", params=["sample", pytest.param("whole", marks=pytest.mark.full)])
def files(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files, or a sample of them that has some of everything."""
    if request.param == "whole":
        return real_data
    sample = tmp_path_factory.mktemp("sample") / "data"
    write_sample(real_data, sample)
    return sample


@pytest.fixture(scope="module")
def reference(files: Path, repository: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("reference", repository / "tests" / "realdata_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures: dict[str, Any] = module.compute(files)
    return figures


@pytest.fixture(scope="module")
def home(
    files: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory, petwellness: Petwellness
) -> Path:
    """The state of a demo on the real files, in the folder that it chooses itself."""
    import os

    folder = tmp_path_factory.mktemp("real")
    done = petwellness("demo", "--data", str(files), env=os.environ, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Result: passed" in done.stdout
    assert [path.name for path in folder.iterdir()] == [".petwellness"]
    return folder / ".petwellness" / "real"


@pytest.fixture(scope="module")
def summary(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "demo_summary.json").read_text())
    return found


def test_the_files_have_some_of_everything_that_is_counted(reference: dict[str, Any]) -> None:
    registry, shelter = reference["registry"], reference["shelter"]
    by_day = ("duplicate_rows", "impossible_birth_years", "district_changed", "left", "came", "returned")
    assert min(sum(registry[name].values()) for name in by_day) > 0
    of_tracker = ("repeated", "late", "out_of_order", "without_fix")
    assert min(reference["tracker"][name] for name in of_tracker) > 0
    assert min(reference["cats"][name] for name in ("outliers_by_algorithm", "outliers_by_hand")) > 0
    assert min(shelter["marked_duplicate"], shelter["animals_that_return"]) > 0


def test_the_registry_over_time(summary: dict[str, Any], reference: dict[str, Any]) -> None:
    expected = reference["registry"]
    found = {
        name.removeprefix("registry_"): figures
        for name, figures in summary["real_input"].items()
        if name.startswith("registry_")
    }
    assert found.keys() == expected["rows"].keys()
    for name, of_reference in {
        "owners": "owners",
        "dogs": "dogs",
        "impossible_birth_years": "impossible_birth_years",
        "exact_duplicate_rows": "duplicate_rows",
    }.items():
        assert {day: figures[name] for day, figures in found.items()} == expected[of_reference], name
    changes = {
        "district_changed": "district_changed",
        "owners_left": "left",
        "owners_came": "came",
        "owners_returned": "returned",
    }
    for name, of_reference in changes.items():
        stated = {day: figures[name] for day, figures in found.items() if name in figures}
        assert stated == expected[of_reference], name


def test_tracker_cats_shelter_and_days(summary: dict[str, Any], reference: dict[str, Any]) -> None:
    found, tracker, cats = summary["real_input"], reference["tracker"], reference["cats"]
    same = ("frames", "repeated", "late", "out_of_order", "without_fix")
    assert {name: found["tracker"][name] for name in same} == {name: tracker[name] for name in same}
    assert found["tracker"]["trackers_without_pet"] == len(tracker["devices"])
    assert found["cats"] == {
        "fixes": cats["fixes"],
        "flagged_outliers": cats["outliers"],
        "fixes_on_a_cat": cats["fixes_on_a_cat"],
        "cats": cats["animals"],
    }
    shelter = reference["shelter"]
    assert found["shelter"] == {
        name: shelter[name]
        for name in ("animals", "visits", "animals_with_several_visits", "animals_that_return")
    }
    days = reference["event_days"]
    assert found["event_days"] == {
        "event_days": days["both"],
        "first_event_day": days["first"],
        "last_event_day": days["last"],
    }


def test_every_message_is_accounted_for(summary: dict[str, Any], reference: dict[str, Any]) -> None:
    assert summary["lake"]["messages"] == reference["tracker"]["frames"] + reference["cats"]["fixes"]
    assert summary["lake"]["rejects_by_reason"] == {}
    assert [step["unexplained"] for step in summary["warehouse"]["layer_steps"]] == [0, 0, 0, 0]


def test_what_a_feed_cannot_support_is_not_applicable(summary: dict[str, Any]) -> None:
    named = {check["check"]: check for check in summary["checks"]["named"]}
    for check in (
        "ml/visit_risk_model:beats_baseline",
        "anl/device_daily_heartbeat:device_heartbeat",
        "anl/clinic_daily_heartbeat:clinic_heartbeat",
        "anl/documents_to_review:reviews_keep_up",
    ):
        assert named[check]["status"] == "not applicable", check
        assert named[check]["reason"], check
    assert summary["model"]["status"] == "not applicable"
    assert summary["truth"] is None
    assert summary["checks"]["failed"] == 0


def test_every_row_that_does_not_fit_is_named(
    home: Path, summary: dict[str, Any], reference: dict[str, Any], files: Path
) -> None:
    with (home / "source_problems.csv").open(encoding="utf-8", newline="") as file:
        problems = list(csv.DictReader(file))
    assert all(p["file"] and p["row"] and p["reason"] for p in problems)
    for name in {p["file"] for p in problems}:
        assert (files / name).is_file(), name
    assert Counter(p["reason"] for p in problems) == summary["source_problems"]
    named = Counter((p["file"], p["reason"]) for p in problems)
    for day, repeats in reference["registry"]["duplicate_rows"].items():
        snapshot = f"registry/zurich_{day.replace('-', '')}_hundehalter.csv"
        assert named[snapshot, "duplicate_row"] == repeats, day
        assert (
            named[snapshot, "impossible_birth_year"] == reference["registry"]["impossible_birth_years"][day]
        )
    shelter = "visits/longbeach_animal_shelter.parquet"
    assert named[shelter, "marked_duplicate"] == reference["shelter"]["marked_duplicate"]
    # Rows of the registry are landed as a dog, or set aside and named.
    for day, rows in reference["registry"]["rows"].items():
        file_name = f"registry/zurich_{day.replace('-', '')}_hundehalter.csv"
        aside = [p for p in problems if p["file"] == file_name and p["set_aside"] == "True"]
        assert rows - len(aside) == reference["registry"]["dogs"][day], day
        assert len({p["row"] for p in aside}) == len(aside)


def test_an_extract_without_a_column_names_both_and_lands_nothing(
    files: Path, manifest: Path, tmp_path: Path, petwellness: Petwellness
) -> None:
    import os

    data = tmp_path / "data"
    for path in files.rglob("*"):
        target = data / path.relative_to(files)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.symlink_to(path)
    broken = data / "registry" / "zurich_20170308_hundehalter.csv"
    with broken.open(encoding="utf-8-sig", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "STADTKREIS"} for row in csv.DictReader(file)]
    broken.unlink()
    with broken.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    home = tmp_path / "home"
    failed = petwellness("extract", "--data", str(data), env={**os.environ, "PETWELLNESS_HOME": str(home)})
    assert failed.returncode == 1
    [line] = [line for line in failed.stderr.splitlines() if line.startswith("petwellness: ")]
    assert "registry/zurich_20170308_hundehalter.csv" in line
    assert "STADTKREIS" in line
    assert "Traceback" not in failed.stderr
    assert not any((home / "lake").rglob("*.parquet"))
    assert not any((home / "lake").rglob("*.json"))
