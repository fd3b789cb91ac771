"""Directories that explain themselves, outputs that appear whole, and stopping in good order.

folder       a run: the directory of a training
card         what a run says of its model, in the words of bioimage.io
output       a result that appears whole or not at all, and knows what made it
staging      the directory in which a result grows
state        what a result depends on
conflicts    outputs that would destroy something
origin       the description of a result: what made it, and from what
fingerprint  tells one content of a file or store from another
files        JSON and named arrays, written whole
locks        locks on files
signals      requests to stop, by signal
"""

from vemseg.run.conflicts import refuse_inputs
from vemseg.run.files import Json, load_tensors, read_json, save_tensors, write_json
from vemseg.run.fingerprint import DESCRIPTION, fingerprint, same, sha256
from vemseg.run.folder import Run
from vemseg.run.locks import Lock, alone
from vemseg.run.origin import lasting, peak_memory, provenance, sidecar, state_in
from vemseg.run.output import Output
from vemseg.run.signals import StopSignal, led_by_parent
from vemseg.run.staging import Place
from vemseg.run.state import State

__all__ = [
    "DESCRIPTION",
    "Json",
    "Lock",
    "Output",
    "Place",
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
    "refuse_inputs",
    "same",
    "save_tensors",
    "sha256",
    "sidecar",
    "state_in",
    "write_json",
]
