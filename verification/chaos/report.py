"""Outcomes as a line, a table and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verification.chaos.harness import Outcome


def line(outcome: Outcome) -> str:
    """One line about a scenario that just ended, and why it failed if it did."""
    findings = outcome.findings
    text = (
        f"{'ok' if outcome.passed else 'FAILED'}: {sum(outcome.kill_points.values())} hits, "
        f"{findings.produced:,} records, {findings.missing:,} missing, {findings.duplicated:,} duplicated, "
        f"{outcome.seconds:.1f} s"
    )
    if outcome.broken:
        text += f" (broken on purpose: damage was {'seen' if outcome.passed else 'NOT seen'})"
    return "\n".join([text, *(f"         {why}" for why in ([] if outcome.passed else reasons(outcome)))])


def reasons(outcome: Outcome) -> list[str]:
    """Why a scenario failed."""
    found = [outcome.error] if outcome.error else []
    found += [
        f"not hit often enough: {name} ({outcome.kill_points.get(name, 0)} of {outcome.expected_hits[name]})"
        for name in outcome.not_hit
    ]
    found += outcome.problems
    findings = outcome.findings
    if findings.missing_by_content or findings.duplicated_by_content:
        found.append(
            f"by content {findings.missing_by_content} missing, {findings.duplicated_by_content} duplicated"
        )
    return found + findings.violations


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes one by one, and what they come to."""
    head = (
        f"{'scenario':28} {'broker':9} {'hits':>4} {'records':>8} {'missing':>8} {'dupl.':>6} "
        f"{'rules':>6} {'s':>6}"
    )
    lines = [head, "-" * len(head)]
    for outcome in outcomes:
        findings = outcome.findings
        verdict = "" if outcome.passed else "  FAILED"
        lines.append(
            f"{outcome.scenario:28} {outcome.broker:9} {sum(outcome.kill_points.values()):4} "
            f"{findings.produced:8,} {findings.missing:8,} {findings.duplicated:6,} "
            f"{findings.broken_rules:6,} {outcome.seconds:6.1f}"
            f"{'  damage seen, as it should be' if outcome.broken and outcome.passed else verdict}"
        )
    total = summary(outcomes)
    lines.append(
        f"{total['scenarios']} scenarios, {total['failed']} failed: {total['kill_points_hit']} faults, "
        f"{total['records']:,} records, {total['missing']} missing, {total['duplicated']} duplicated; "
        f"{total['self_tests']} self-tests, {total['self_tests_failed']} failed"
    )
    return lines


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Totals; collectors that are broken on purpose are counted apart."""
    real = [outcome for outcome in outcomes if not outcome.broken]
    broken = [outcome for outcome in outcomes if outcome.broken]
    return {
        "scenarios": len(real),
        "failed": sum(not outcome.passed for outcome in real),
        "kill_points_hit": sum(sum(outcome.kill_points.values()) for outcome in real),
        "records": sum(outcome.findings.produced for outcome in real),
        "missing": sum(outcome.findings.missing for outcome in real),
        "duplicated": sum(outcome.findings.duplicated for outcome in real),
        "seconds": round(sum(outcome.seconds for outcome in real), 1),
        "self_tests": len(broken),
        "self_tests_failed": sum(not outcome.passed for outcome in broken),
    }


def write(path: Path, outcomes: Sequence[Outcome], described: Mapping[str, Any]) -> None:
    """Write the JSON file: what ran where, the totals, every scenario."""
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(described),
        "summary": summary(outcomes),
        "scenarios": [_plain(outcome) for outcome in outcomes if not outcome.broken],
        "self_tests": [_plain(outcome) for outcome in outcomes if outcome.broken],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _plain(outcome: Outcome) -> dict[str, Any]:
    document = asdict(outcome)
    findings = document.pop("findings")
    document["records"] = findings.pop("produced")
    return document | findings | {"passed": outcome.passed, "not_hit": outcome.not_hit}
