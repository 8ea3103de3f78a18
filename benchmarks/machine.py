"""The machine a benchmark ran on, as its report names it."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Processor, how many of it this process may use, and what it multiplies bfloat16 with."""
    flags = processor_flags()
    fast = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return (
        f"{processor()}, {len(os.sched_getaffinity(0))} processors, "
        f"bfloat16 by {' and '.join(fast) or 'nothing faster than float32'}"
    )


def processor() -> str:
    """Its name; the machine's kind where the system does not tell."""
    return _cpuinfo("model name") or platform.machine()


def processor_flags() -> frozenset[str]:
    """What the processor can do, in the kernel's words; empty where it does not tell."""
    return frozenset(_cpuinfo("flags").split())


def status_bytes(name: str, process: int | None = None) -> int:
    """A size of /proc/<process>/status, such as RssAnon, in bytes; by default of this process.

    Raises OSError if there is no such process (any more).
    """
    status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(process)  # it has ended, and waits to be asked for its exit code


def available_bytes() -> int:
    """Memory that programs can still have, in the kernel's estimate; raises OSError where it makes none."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/meminfo has no MemAvailable")


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
