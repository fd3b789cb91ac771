"""One training step of MAESTER at its published size: samples per second of vemseg, and of plain float32.

The plain step is what the reference code does on a CPU: float32 weights, PyTorch's AdamW, fused attention.
vemseg holds weights in bfloat16 where the processor multiplies it, adds up updates in float32 masters, and
spells attention out, since the fused kernel's backward pass is the slow part on CPUs. Both draw their fields
of view from the same sampler, and that counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from common import add_threads, conclude, interleaved, machine, parser, show, spread
from timm.layers import Attention

from vemseg.geometry import Box
from vemseg.models import build_objective
from vemseg.models.devices import wants_bf16
from vemseg.models.layers import choose_attention
from vemseg.models.objective import step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import FovTable, MaesterTable, TrainTable
from vemseg.sampling import Sampler, Source
from vemseg.training import MasterAdamW
from vemseg.volume import ArrayVolume, Intensity

TARGET = 1.25
CPU = torch.device("cpu")
SHAPE = (96, 128, 128)


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    settings = TrainTable(batch=options.batch)
    volume = ArrayVolume(Phantom(SHAPE).read(Box.whole(SHAPE)), (16.0, 16.0, 16.0))
    edge = MaesterTable().fov
    sampler = Sampler([Source(volume, Intensity(0.0, 255.0))], (1, edge, edge), FovTable(), 0, CPU)
    candidates = {"plain": _plain(sampler, settings), "vemseg": _vemseg(sampler, settings, options.precision)}
    seconds = interleaved(
        {name: _several(step, options.steps) for name, step in candidates.items()}, options.repetitions
    )
    rates = {name: [options.steps * options.batch / s for s in values] for name, values in seconds.items()}
    ratio = statistics.median(rates["vemseg"]) / statistics.median(rates["plain"])
    number = "bfloat16 + float32 masters" if wants_bf16(options.precision, CPU) else "float32"
    show(
        f"samples per second, batch {options.batch}",
        ["", "median", "min", "max", "ratio"],
        [
            ["plain: float32, AdamW, fused attention", *spread(rates["plain"]).values(), 1.0],
            [f"vemseg: {number}", *spread(rates["vemseg"]).values(), f"{ratio:.2f}"],
        ],
    )
    details = {name: spread(values) for name, values in rates.items()}
    details |= {"batch": options.batch, "precision": number, "machine": machine(options.threads)}
    conclude(
        "training_step", ratio, "times the plain samples per second", f">= {TARGET}", ratio >= TARGET, details
    )


def _options():
    made = parser(__doc__, repetitions=5)
    add_threads(made)
    made.add_argument("--batch", type=int, default=32, help="samples in a step")
    made.add_argument("--steps", type=int, default=3, help="steps in a measurement")
    made.add_argument("--precision", default="bf16", choices=["auto", "bf16", "fp32"], help="of vemseg")
    return made.parse_args()


def _plain(sampler: Sampler, settings: TrainTable) -> Callable[[int], None]:
    objective = build_objective(MaesterTable(), settings.seed)
    for module in objective.modules():
        if isinstance(module, Attention):
            module.fused_attn = True
    adamw = torch.optim.AdamW(
        objective.parameters(), settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )

    def step(number: int) -> None:
        batch = sampler.batch(number, settings.batch)
        objective(batch, step_generator(settings.seed, number))["loss"].backward()
        adamw.step()
        adamw.zero_grad()

    return step


def _vemseg(sampler: Sampler, settings: TrainTable, precision: str) -> Callable[[int], None]:
    objective = build_objective(MaesterTable(), settings.seed)
    choose_attention(objective, CPU, training=True)
    if wants_bf16(precision, CPU):
        objective.to(torch.bfloat16)
    optimiser = MasterAdamW(objective, settings)

    def step(number: int) -> None:
        batch = sampler.batch(number, settings.batch)
        objective(batch, step_generator(settings.seed, number))["loss"].backward()
        optimiser.step(settings.lr)

    return step


def _several(step: Callable[[int], None], count: int) -> Callable[[], None]:
    def run() -> None:
        for number in range(count):
            step(number)

    return run


if __name__ == "__main__":
    main()
