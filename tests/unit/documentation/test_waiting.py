"""Tests wait for states by `tests/waiting.py`, with its deadline: no file has a loop or a patience of its own."""

from pathlib import Path


def test_no_test_has_a_deadline_of_its_own(repository: Path) -> None:
    own = [
        str(path.relative_to(repository))
        for path in sorted((repository / "tests").rglob("*.py"))
        if path not in (repository / "tests" / "waiting.py", Path(__file__))
        and any(sign in path.read_text() for sign in ("monotonic() +", "def until(condition"))
    ]
    assert own == []
