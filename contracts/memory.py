"""Give freed memory back to the system between stages of a long process, and say how much was held at most.

Allocators keep what was freed for the next request; a process that decodes
millions of messages and then loads them would hold both peaks at once.
"""

import ctypes
import gc
import sys
from pathlib import Path

# A collection goes through everything that is there, and most of that is loaded libraries: with Dagster, dbt and Great
# Expectations that takes 0.7 s of a core each time.
FREEZE_ABOVE = 0.25


def collect_garbage() -> None:
    """Collect garbage that is in cycles. What has come to stay is gone through once: when as many objects have stayed as
    FREEZE_ABOVE of those set aside before, they are set aside, too. Of them only cycles are not found any more."""
    gc.collect()
    if len(gc.get_objects(generation=2)) > FREEZE_ABOVE * gc.get_freeze_count():
        gc.freeze()


def release_memory() -> None:
    """Collect garbage and return unused heap; what is in use stays."""
    import pyarrow as pa

    collect_garbage()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        # Only glibc has it; musl keeps little by itself.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_memory_bytes(pid: int | None = None) -> int | None:
    """Largest resident memory so far of this process, or of another one while it runs.

    From /proc on Linux: `ru_maxrss` of a child starts with what its parent had at the fork.
    None for another process where there is no /proc.
    """
    status = Path(f"/proc/{pid or 'self'}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if pid is not None:
        return None
    import resource

    # macOS counts bytes; it is the one supported system without /proc.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
