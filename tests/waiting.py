"""How tests wait for other programs and threads: for a state, with one deadline, and to the end of what they start."""

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

# Long enough for a machine that does other things; a test that passes never waits for it.
DEADLINE_S = 240.0
POLL_S = 0.02
# A condition that takes a while to look at is looked at less often, up to so long apart: what is waited for needs the
# core that looking takes.
LONGEST_POLL_S = 0.5
# What has to end in bounded time ends within this, also on a busy machine; without its bound it would go on for minutes.
IN_TIME_S = 45.0

Seen = TypeVar("Seen")

# Starts a command as `command &` in a shell without job control does, and as `nohup make test &` does all it starts.
IGNORING_SIGINT = ("/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"')


def until(condition: Callable[[], Seen], what: str) -> Seen:
    """What the condition gives once that is true; fails naming what was waited for."""
    started = asked = time.monotonic()
    while not (seen := condition()):
        took_s = time.monotonic() - asked
        assert time.monotonic() < started + DEADLINE_S, f"after {DEADLINE_S:.0f} s still not: {what}"
        time.sleep(min(max(POLL_S, 4 * took_s), LONGEST_POLL_S))
        asked = time.monotonic()
    return seen


def end(process: "subprocess.Popen[Any]", number: int = signal.SIGTERM) -> int:
    """Signal a process that may have ended, wait for its end, and give its exit code.

    One that does not end is killed, so that no test leaves a process behind, and fails the test.
    """
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(
            f"{process.args} did not end within {DEADLINE_S:.0f} s of {signal.Signals(number).name}"
        ) from None
