"""How long ``python -m vemseg --help`` takes, and what it imports.

Help, completion and mistyped options must answer at once, so nothing that computes may be imported for them.
For comparison: a bare Python, and ``import torch``, which a program that imported it at the top would pay.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from common import conclude, interleaved, machine, parser, show, spread

TARGET = 0.5
HEAVY = [
    "torch",
    "torchvision",
    "timm",
    "zarr",
    "tifffile",
    "numcodecs",
    "matplotlib",
    "sklearn",
    "skimage",
    "scipy",
]


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, repetitions=10).parse_args()
    ours = [sys.executable, "-m", "vemseg", "--help"]
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "torch": [sys.executable, "-c", "import torch"],
        "vemseg": ours,
    }
    seconds = interleaved(
        {name: _calling(command) for name, command in commands.items()}, options.repetitions
    )
    imported = _imported(ours)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    show(
        "seconds of wall time",
        ["", "median", "min", "max", "ratio"],
        [
            [label, *spread(seconds[name]).values(), f"{middle[name] / middle['torch']:.2f}"]
            for name, label in (
                ("bare", "python -c pass"),
                ("torch", "import torch"),
                ("vemseg", "vemseg --help"),
            )
        ],
    )
    found = [name for name in HEAVY if name in imported]
    print(f"\nimported by it: {len(imported)} modules, of these heavy: {', '.join(found) or 'none'}")
    details = {name: spread(values) for name, values in seconds.items()}
    details |= {"heavy": found, "modules": len(imported), "machine": machine()}
    met = middle["vemseg"] < TARGET and not found
    conclude("start_up", middle["vemseg"], "s", f"< {TARGET} s, nothing heavy imported", met, details)


def _calling(command: list[str]):
    return lambda: subprocess.run(command, check=True, capture_output=True)


def _imported(command: list[str]) -> set[str]:
    """Return the names of all modules that a Python command imports."""
    python, *rest = command
    done = subprocess.run([python, "-X", "importtime", *rest], check=True, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


if __name__ == "__main__":
    main()
