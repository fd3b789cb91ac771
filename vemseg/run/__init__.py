"""Directories that explain themselves, outputs that appear whole, and stopping in good order."""

from vemseg.run.files import (
    atomic_path,
    load_tensors,
    lock,
    read_json,
    save_tensors,
    unlock,
    write_json,
    write_text,
)
from vemseg.run.folder import Run
from vemseg.run.origin import fingerprint, peak_memory, provenance, sidecar
from vemseg.run.signals import StopSignal

__all__ = [
    "Run",
    "StopSignal",
    "atomic_path",
    "fingerprint",
    "load_tensors",
    "lock",
    "peak_memory",
    "provenance",
    "read_json",
    "save_tensors",
    "sidecar",
    "unlock",
    "write_json",
    "write_text",
]
