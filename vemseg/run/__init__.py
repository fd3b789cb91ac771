"""Directories that explain themselves, outputs that appear whole, and stopping in good order."""

from vemseg.run.files import Json, load_tensors, read_json, save_tensors, write_json
from vemseg.run.fingerprint import fingerprint, same, sha256
from vemseg.run.folder import Run
from vemseg.run.locks import Lock, alone
from vemseg.run.origin import lasting, peak_memory, provenance, sidecar, state_in
from vemseg.run.output import Output, State
from vemseg.run.signals import StopSignal, led_by_parent

__all__ = [
    "Json",
    "Lock",
    "Output",
    "Run",
    "State",
    "StopSignal",
    "alone",
    "fingerprint",
    "lasting",
    "led_by_parent",
    "load_tensors",
    "peak_memory",
    "provenance",
    "read_json",
    "same",
    "save_tensors",
    "sha256",
    "sidecar",
    "state_in",
    "write_json",
]
