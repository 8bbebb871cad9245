"""Outcomes as a line, a table and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaos.stage import Outcome


def line(outcome: Outcome) -> str:
    """One line about a scenario that just ended."""
    findings = outcome.findings
    verdict = "ok" if outcome.passed else "FAILED"
    hits = sum(outcome.kill_points.values())
    text = (
        f"{verdict:6} {outcome.broker:9} {outcome.scenario:28} {hits:4} hits "
        f"{findings.produced:7,} records {findings.missing} missing {findings.duplicated} duplicated "
        f"{outcome.seconds:5.1f} s"
    )
    return text if outcome.passed else "\n".join([text, *(f"       {why}" for why in reasons(outcome))])


def reasons(outcome: Outcome) -> list[str]:
    """Why a scenario failed."""
    found = [outcome.error] if outcome.error else []
    found += [
        f"not hit often enough: {name} ({outcome.kill_points.get(name, 0)} of {outcome.expected_hits[name]})"
        for name in outcome.not_hit
    ]
    findings = outcome.findings
    if findings.missing_by_content or findings.duplicated_by_content:
        found.append(
            f"by content {findings.missing_by_content} missing, {findings.duplicated_by_content} duplicated"
        )
    return found + findings.violations


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes side by side, and the sum."""
    head = f"{'scenario':30} {'broker':14} {'hits':>5} {'records':>8} {'missing':>8} {'dupl.':>6} {'broken':>7} {'s':>6}"
    lines = [head, "-" * len(head)]
    for outcome in outcomes:
        findings = outcome.findings
        lines.append(
            f"{outcome.scenario:30} {outcome.broker:14} {sum(outcome.kill_points.values()):5} "
            f"{findings.produced:8,} {findings.missing:8,} {findings.duplicated:6,} "
            f"{findings.broken_rules:7,} {outcome.seconds:6.1f}{'' if outcome.passed else '  FAILED'}"
        )
    failed = sum(not outcome.passed for outcome in outcomes)
    lines.append(f"{len(outcomes)} scenarios, {failed} failed")
    return lines


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write `build/chaos.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([_plain(outcome) for outcome in outcomes], indent=1) + "\n")


def _plain(outcome: Outcome) -> dict[str, Any]:
    document = asdict(outcome)
    findings = document.pop("findings")
    document["records"] = findings.pop("produced")
    return document | findings | {"passed": outcome.passed, "not_hit": outcome.not_hit}
