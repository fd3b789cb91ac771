"""Memory and cores, read from made-up machines."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from vemseg import resources
from vemseg.errors import UsageError
from vemseg.resources import available_memory, byte_text, memory_budget, parse_bytes, usable_cores

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes the files of a machine of 64 GiB and 16 cores, and its root."""
    monkeypatch.setattr(resources, "_address_space", lambda: iter(()))
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def build(**files):
        for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 67108864 kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * GIB),
        ("2G", 2 * GIB),
        ("1500MB", 1_500_000_000),
        ("1.5 gib", 3 * GIB // 2),
        ("512m", 512 * 2**20),
        ("1TB", 10**12),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2", "GiB", "-1G", "0G", "2 gallons", "1e3G"])
def test_texts_that_are_no_size(text):
    with pytest.raises(UsageError, match="write 2GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("size", [5 * 2**20, 900 * 2**20, GIB, 1.5 * GIB, 12 * GIB])
def test_a_size_is_read_as_it_is_written(size):
    assert parse_bytes(byte_text(size)) == size


def test_the_machine_alone(machine):
    root = machine()
    assert available_memory(root, {}) == 64 * GIB
    assert memory_budget(root, {}) == resources.MOST_BYTES
    assert usable_cores(root, {}) == 16


def test_half_of_little_memory(machine):
    root = machine(**{"proc/meminfo": "MemAvailable: 2097152 kB"})
    assert memory_budget(root, {}) == GIB


def test_control_groups_of_version_2_count_all_the_way_up(machine):
    root = machine(
        **{
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            "sys/fs/cgroup/job/memory.max": str(10 * GIB),
            "sys/fs/cgroup/job/memory.current": str(5 * GIB),
            "sys/fs/cgroup/job/memory.stat": f"anon 7\ninactive_file {GIB}\n",
            "sys/fs/cgroup/job/cpu.max": "350000 100000\n",
        }
    )
    assert available_memory(root, {}) == 6 * GIB
    assert usable_cores(root, {}) == 3


def test_control_groups_of_version_1_seen_from_inside_a_container(machine):
    root = machine(
        **{
            "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(3 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        }
    )
    assert available_memory(root, {}) == 2 * GIB
    assert usable_cores(root, {}) == 1


def test_version_1_without_a_limit(machine):
    root = machine(
        **{
            "proc/self/cgroup": "5:memory:/\n2:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert available_memory(root, {}) == 64 * GIB
    assert usable_cores(root, {}) == 16


def test_a_group_outside_the_namespace(machine):
    root = machine(**{"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": str(GIB)})
    assert available_memory(root, {}) == GIB


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8 * GIB),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, 64 * GIB),
        ({"SLURM_MEM_PER_CPU": "1024"}, 64 * GIB),
        ({"SLURM_MEM_PER_NODE": "plenty"}, 64 * GIB),
    ],
)
def test_slurm(machine, environment, size):
    assert available_memory(machine(), environment) == size


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "40"}, 16),
        ({"OMP_NUM_THREADS": "2", "SLURM_CPUS_PER_TASK": "4"}, 2),
        ({"OMP_NUM_THREADS": "many"}, 16),
    ],
)
def test_cores(machine, environment, cores):
    assert usable_cores(machine(), environment) == cores


def test_an_address_space_limit_counts(machine, monkeypatch):
    monkeypatch.setattr(resources, "_address_space", lambda: iter([GIB]))
    assert available_memory(machine(), {}) == GIB


def test_nothing_known(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_machine_memory", lambda root: None)
    monkeypatch.setattr(resources, "_address_space", lambda: iter(()))
    assert available_memory(tmp_path, {}) is None
    assert memory_budget(tmp_path, {}) == resources.BYTES_IF_UNKNOWN


def test_this_machine():
    assert 2**26 < available_memory() < 2**50
    assert usable_cores() >= 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps no arrays")
def test_arrays_that_are_freed_are_given_back():
    program = """if True:
        import sys
        import numpy as np
        from vemseg.resources import resident_memory, return_large_arrays
        if sys.argv[1] == "return":
            return_large_arrays()
        np.ones(24 * 2**20, np.uint8)  # freed, after which the library keeps what is smaller
        arrays = [np.ones(16 * 2**20, np.uint8) for _ in range(8)]
        before = resident_memory()
        del arrays[:-1]
        print((before - resident_memory()) / 2**24)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    kept, returned = (
        float(subprocess.check_output([sys.executable, "-c", program, how], env=environment))
        for how in ("keep", "return")
    )
    assert returned > 6.5 and returned > kept - 0.5  # some libraries give them back by themselves
