"""SIGINT and SIGTERM: what a service makes of them, whatever the process that started it did."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def restore_stop_signals() -> None:
    """Take SIGINT and SIGTERM again where whoever started this process has ignored or blocked them.

    A shell without job control starts `command &` with SIGINT ignored. Python then leaves it so, and Dagster gives
    SIGTERM whatever SIGINT has: such a process could only be killed. Services call this, and what runs Dagster in
    or as its own process; a command that only asks or prints stays as it was started.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set, for loops that stop between two steps."""
    restore_stop_signals()
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
