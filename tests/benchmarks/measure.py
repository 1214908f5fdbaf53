"""Time and memory of a stage beside its direct formulation, in one process; nothing here knows the stages."""

import ctypes
import gc
import time
from pathlib import Path

import numpy as np
import torch


def timed(function, repeats):
    """Best time in seconds of `repeats` calls, the first call left out unless it is the only one; and the last result."""
    best, result = float("inf"), None
    for number in range(repeats + (repeats > 1)):
        began = time.perf_counter()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number or repeats == 1:
            best = min(best, time.perf_counter() - began)
    return best, result


def watched(function, device):
    """What a call returns, and the bytes it adds to this process's peak, or takes on a GPU; None where nobody can tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return function(), torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        reset.write_text("5")  # Linux: the peak starts anew from what is resident now
        before = _kilobytes(status, "VmRSS")
    except OSError:
        return function(), None
    return function(), 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status, name):
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def compare(stage, fast, direct, difference, device, repeats=(5, 2), memory=True):
    """One row of the table: `fast` against `direct`, whose results `difference` compares."""
    (seconds, result), used = watched(lambda: timed(fast, repeats[0]), device)
    (oracle_seconds, oracle), oracle_used = watched(lambda: timed(direct, repeats[1]), device)
    used = used if memory else None
    row = {
        "stage": stage,
        "ratio": round(oracle_seconds / seconds, 2),
        "milliseconds": round(1e3 * seconds, 3),
        "oracle_milliseconds": round(1e3 * oracle_seconds, 3),
        "memory_ratio": round(oracle_used / used, 2)
        if used and min(used, oracle_used) > 1e6
        else None,  # less is not to be told
        "megabytes": round(used / 1e6, 1) if used is not None else None,
        "difference": float(difference(result, oracle)),
        "device": device.type,
    }
    print(
        f"{stage:16} {row['ratio']:8.2f} x {row['milliseconds']:11.2f} ms {row['oracle_milliseconds']:11.2f} ms   "
        f"memory {row['memory_ratio'] or '-':>6}   difference {row['difference']:.1e}",
        flush=True,
    )
    return row


def largest(a, b):
    """The largest difference of two tensors or arrays."""
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()


def share(a, b):
    """The share of places in which two label maps differ."""
    return (np.asarray(a) != np.asarray(b)).mean()
