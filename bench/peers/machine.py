# SPDX-License-Identifier: BSD-3-Clause
"""What the run ran on, as far as it says something about speed; nothing that names the machine."""

import os
import platform
import subprocess
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cpus(),
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "virtual": "hypervisor" in _cpu_field("flags").split(),
        "python": platform.python_version(),
    }


def _cpu_field(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        field, _, value = line.partition(":")
        if field.strip() == name:
            return value.strip()
    return ""


def _cpu_model() -> str:
    """With family and model on x86: cloud machines keep the rest of the name to themselves."""
    name = _cpu_field("model name") or platform.processor() or platform.machine()
    family, model = _cpu_field("cpu family"), _cpu_field("model")
    return f"{name} (family {family}, model {model})" if family else name


def _caches() -> list[str]:
    found = []
    for index in sorted(CACHES.glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            level, size = ((index / name).read_text().strip() for name in ("level", "size"))
            found.append(f"L{level} {size.removesuffix('K')} KiB")
    return found


def commit(root: Path) -> str:
    """The library's commit, "+" behind it if files differ from it; "unknown" outside of a
    repository."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=10", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
