"""Directories that explain themselves, outputs that appear whole, and stopping in good order."""

from vemseg.run.files import atomic_path, load_tensors, read_json, save_tensors, write_json, write_text
from vemseg.run.folder import Run
from vemseg.run.origin import fingerprint, peak_memory, provenance, sidecar
from vemseg.run.signals import StopSignal

__all__ = [
    "Run",
    "StopSignal",
    "atomic_path",
    "fingerprint",
    "load_tensors",
    "peak_memory",
    "provenance",
    "read_json",
    "save_tensors",
    "sidecar",
    "write_json",
    "write_text",
]
