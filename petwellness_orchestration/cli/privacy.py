"""`petwellness privacy`: looks for personal data where none may be."""

from __future__ import annotations

from petwellness_orchestration.cli.console import say, warn
from petwellness_orchestration.settings import load_settings


def look_for_personal_data() -> int:
    """Look through everything; 1 when something was found. Names places, never values."""
    from petwellness_orchestration.privacy import find_personal_data

    settings = load_settings()
    if not settings.warehouse_path.exists():
        warn(f"there is no warehouse at {settings.warehouse_path}, so nobody's data is known")
        return 1
    say("looking through anl, ml, the published copy, logs and Dagster's storage")
    report = find_personal_data(settings, full=True)
    for finding in report.findings:
        print(finding)
    print(
        f"{len(report.findings)} places with personal data; looked for {report.owners_known} people by name"
        f" in all tables, {report.files} log files and {report.databases} databases"
    )
    return 1 if report.findings else 0
