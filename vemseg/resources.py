"""What this process may use of the machine: memory and cores, whoever limits them.

A batch system, a container and the machine itself each set bounds; the tightest counts. Every function reads
files below ``root`` and variables of ``environment``, which tests replace.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from vemseg.errors import UsageError

GIB = 2**30

SHARE = 0.5
"""Fraction of the free memory that is used where the user names no limit."""

MOST_BYTES = 4 * GIB
"""Most bytes that are used where the user names no limit: more makes nothing faster."""

BYTES_IF_UNKNOWN = 2 * GIB
"""Bytes that are used where the user names no limit and the free memory is unknown."""

UNLIMITED = 2**60
"""Control groups of version 1 write a number above this one for "no limit"."""

LARGE = 9 * 2**20
"""Arrays of at least this many bytes are the system's again as soon as they are freed. Activations that are
made to fit a cache are smaller: they take the same memory over and over."""

KEPT = 64 * 2**20
"""Free bytes at the end of the heap that a process keeps for its smaller arrays: activations that come and go
would else be asked of the system again in every layer, page by page."""

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1

_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """Read ``2GiB``, ``1500MB`` or ``2G`` (as 2GiB) as bytes.

    Raises
    ------
    UsageError
        Where the text cannot be parsed as such a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])(i?b)?\s*", text.lower())
    size = 0
    if found:
        thousand = 1000 if found[3] == "b" else 1024
        size = int(float(found[1]) * thousand ** _UNITS[found[2]])
    if size <= 0:
        raise UsageError(f"'{text}' is not an amount of memory: write 2GiB, 1500MB or 2G")
    return size


def byte_text(size: float) -> str:
    """Return a number of bytes as people say it, and as ``parse_bytes`` reads it: ``1.5GiB``, ``300MiB``."""
    if size >= 0.995 * GIB:
        return f"{size / GIB:.3g}GiB"
    return f"{size / 2**20:.0f}MiB" if size >= 2**20 else f"{size / 2**10:.1f}KiB"


def memory_budget(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Return the bytes to use by default: ``SHARE`` of what is free, at most ``MOST_BYTES``."""
    left = available_memory(root, environment)
    return BYTES_IF_UNKNOWN if left is None else min(int(SHARE * left), MOST_BYTES)


def available_memory(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the bytes this process can still take; None where the system does not tell.

    The least of what the machine has left, what is left in each control group around the process (version 1
    and 2), what Slurm gave the job, and the limit of its address space.
    """
    machine = _machine_memory(root)
    limits = [*_group_memory(root), *_slurm_memory(environment), *_address_space()]
    found = [*limits, machine] if machine is not None else limits
    return max(0, min(found)) if found else None


def usable_cores(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Return how many threads to compute with: what the user or Slurm says, else the cores at hand.

    ``OMP_NUM_THREADS`` is taken as it is. Without it, the smallest of these numbers counts:
    ``SLURM_CPUS_PER_TASK``, the cores the process may run on, and the cores its control groups pay for.
    """
    wanted = _number(environment.get("OMP_NUM_THREADS", "").split(",")[0])
    if wanted:
        return wanted
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slurm = _number(environment.get("SLURM_CPUS_PER_TASK"))
    return max(1, min([affinity, *_group_cores(root), *([slurm] if slurm else [])]))


def task_of(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return which part of shared work a text stands for: its index from 0 on, and the number of parts.

    Parameters
    ----------
    text : str
        ``I/N``, the I-th of N parts from 1 on; ``auto``, what SLURM, LSF or SGE say of a task of an array;
        ``auto/N``, the same where the array has N tasks, which PBS does not tell.
    environment : mapping
        Variables of this process.

    Raises
    ------
    UsageError
        Where the text is none of these, or this is not a task of an array job.
    """
    found = re.fullmatch(r"(auto|[1-9]\d*)(?:/([1-9]\d*))?", text.strip())
    if found is None or (found[1] != "auto" and (found[2] is None or int(found[1]) > int(found[2]))):
        raise UsageError(f"'{text}' is not a shard: write I/N, such as 3/16 for the third of 16, or auto")
    if found[1] != "auto":
        return int(found[1]) - 1, int(found[2])
    names = next((names for names in _ARRAYS if _number(environment.get(names[0])) is not None), None)
    if names is None:
        raise UsageError(
            "--shard auto: this is not a task of an array job of SLURM, PBS, LSF or SGE: write I/N"
        )
    number, first, last, step = (_number(environment.get(name)) for name in names)
    assert number is not None
    index = (number - (1 if first is None else first)) // (step or 1)
    if found[2] is not None:
        return index % int(found[2]), int(found[2])
    if last is None:
        raise UsageError("--shard auto: PBS does not say how many tasks there are: write auto/N for N tasks")
    return index, (last - (1 if first is None else first)) // (step or 1) + 1


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return which of the processes started by ``torchrun`` this is, and how many they are; else 0 and 1."""
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
    index, count, port = (_number(environment.get(name)) for name in names)
    if index is None or count is None or port is None or not index < count:
        return 0, 1
    return index, count


_ARRAYS = (
    ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"],
    ["SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"],
    ["LSB_JOBINDEX", "LSB_JOBINDEX_FIRST", "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"],
    ["PBS_ARRAY_INDEX", "", "", ""],
    ["PBS_ARRAYID", "", "", ""],
)
"""Variables by which batch systems tell a task of an array its number, and the first, last and step."""


def batch_header(memory: int, seconds: float, *, gpu: bool, cores: int | None = None) -> list[str]:
    """Return the lines with which a script for SLURM asks for this memory and time.

    Parameters
    ----------
    memory : int
        Bytes that are occupied at most; twice as many are asked for, since ``SHARE`` of what a job gets is
        used.
    seconds : float
        How long it takes here; half as long again is asked for, and five minutes, in whole ten minutes.
    gpu : bool
        Whether it computes on a GPU.
    cores : int, optional
        Threads; as many as are used here where it is left out.
    """
    tens = math.ceil((1.5 * seconds + 300) / 600)
    asked = [
        f"--cpus-per-task={cores or usable_cores()}",
        f"--mem={math.ceil(memory / SHARE / GIB)}G",
        f"--time={tens // 6:02d}:{tens % 6 * 10:02d}:00",
        *(["--gres=gpu:1"] if gpu else []),
    ]
    return [f"#SBATCH {one}" for one in asked]


def _machine_memory(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        try:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            continue
    return None


def _group_memory(root: Path) -> Iterator[int]:
    """Yield what is left in each control group; cached file pages that nobody uses count as left."""
    for folder in _groups(root, ""):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit is not None:
            yield limit - (used or 0) + _idle_cache(folder, "inactive_file")
    for folder in _groups(root, "memory"):
        limit, used = _read(folder / "memory.limit_in_bytes"), _read(folder / "memory.usage_in_bytes")
        if limit is not None and limit < UNLIMITED:
            yield limit - (used or 0) + _idle_cache(folder, "total_inactive_file")


def _group_cores(root: Path) -> Iterator[int]:
    """Yield the whole cores that each control group pays for."""
    for folder in _groups(root, ""):
        quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield max(1, int(quota) // int(period))
    for folder in _groups(root, "cpu"):
        spent, each = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if spent and each:
            yield max(1, spent // each)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control groups around this process, innermost first; "" is the hierarchy of version 2."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, inside = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup"
        if controller:
            top = next((p for p in (top / controllers, top / controller) if p.is_dir()), top / controller)
        place = PurePosixPath(*(part for part in PurePosixPath(inside).parts if part not in ("/", "..")))
        for group in (place, *place.parents):
            yield top / group


def _slurm_memory(environment: Mapping[str, str]) -> Iterator[int]:
    """Yield what Slurm gave the job on this node; it counts in MiB, and 0 means all of the node."""
    if node := _number(environment.get("SLURM_MEM_PER_NODE")):
        yield node * 2**20
    each, cores = (_number(environment.get(f"SLURM_{name}")) for name in ("MEM_PER_CPU", "CPUS_ON_NODE"))
    if each and cores:
        yield each * cores * 2**20


def _address_space() -> Iterator[int]:
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _idle_cache(folder: Path, key: str) -> int:
    for line in (_text(folder / "memory.stat") or "").splitlines():
        if line.startswith(f"{key} "):
            return int(line.split()[1])
    return 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _read(path: Path) -> int | None:
    return _number(_text(path))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None


def return_large_arrays() -> None:
    """Let this process give the memory of arrays above ``LARGE`` back to the system when they are freed.

    The GNU C library moves that bound up to 32 MiB as arrays are freed, and from then on keeps smaller ones
    in a heap with holes: a process then occupies more than its arrays take. Other C libraries are left as
    they are.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no such library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT)


def resident_memory() -> int:
    """Return the bytes of memory this process occupies; on systems that do not tell, the most it ever did."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on the host or a GPU, in computing or as a library was loaded."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    if isinstance(error, ImportError):
        return "failed to map segment" in text or "cannot allocate memory" in text
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
