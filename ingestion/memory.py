"""Give freed memory back to the system between stages of a long process.

Allocators keep what was freed for the next request; a process that decodes
millions of messages and then loads them would hold both peaks at once.
"""

import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect garbage and return unused heap; what is in use stays. Takes some 50 ms."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        # Only glibc has it; musl keeps little by itself.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
