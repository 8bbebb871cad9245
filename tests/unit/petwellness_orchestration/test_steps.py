"""How commands end: exit codes and last lines of finished runs."""

import pytest

from petwellness_orchestration.cli.runs import CheckOutcome, RunOutcome
from petwellness_orchestration.cli.steps import finish_checks


def outcome(success: bool, *statuses: str) -> RunOutcome:
    checks = [CheckOutcome("anl/t", f"check_{n}", status, False) for n, status in enumerate(statuses)]
    return RunOutcome(success, "run", {}, checks, error=None if success else "it broke")


@pytest.mark.parametrize(
    ("success", "statuses", "code", "last_words"),
    [
        (True, ("passed", "warned", "not applicable"), 0, ""),
        (True, ("passed", "failed", "failed"), 1, "2 checks failed"),
        (False, ("failed",), 1, "it broke"),
        (False, (), 1, "it broke"),
    ],
)
def test_a_check_that_failed_fails_the_command_even_where_it_stops_no_run(
    success: bool,
    statuses: tuple[str, ...],
    code: int,
    last_words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert finish_checks(outcome(success, *statuses)) == code
    assert capsys.readouterr().err.strip().removeprefix("petwellness: ") == last_words
