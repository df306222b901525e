"""Peak memory of this process since the last reset."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Reset the peak; only Linux can reset that of the CPU.

    What was freed is given back first: C's allocator keeps freed memory that lies below something in use, and all of
    it would count as resident.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # glibc's; musl has none
        trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or no permission: the peak then counts from the start of the process
        return


def peak_memory() -> int:
    """Return the peak in bytes: of GPU memory if there is a GPU, else of the process's resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
