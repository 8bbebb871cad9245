"""What commands print: progress lines with the time since the start, and tables for people."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def say(text: str) -> None:
    """One progress line, at once, with the seconds since the command started."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)


def warn(text: str) -> None:
    """One line for people on standard error."""
    print(f"petwellness: {text}", file=sys.stderr, flush=True)


def thousands(number: float) -> str:
    """A count with thousands separators."""
    return f"{number:,.0f}"


def mebibytes(size_bytes: float) -> str:
    """A size as MiB with one decimal."""
    return f"{size_bytes / 2**20:,.1f} MiB"
