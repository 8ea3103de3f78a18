"""The machine a benchmark ran on, as its report names it."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Processor, how many of it this process may use, and what it multiplies bfloat16 with."""
    flags = processor_flags()
    fast = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return (
        f"{_cpuinfo('model name') or platform.machine()}, {len(os.sched_getaffinity(0))} processors, "
        f"bfloat16 by {' and '.join(fast) or 'nothing faster than float32'}"
    )


def processor_flags() -> frozenset[str]:
    """What the processor can do, in the kernel's words; empty where it does not tell."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
