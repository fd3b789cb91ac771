"""Exact cover-and-stride: output pixels per second of vemseg, and of the published way to compute the same.

MAESTER (CVPR 2023, section 3.3) gives each pixel the vector of the patch centred on it. A field of view of
80 x 80 pixels yields 16 such vectors, its central 4 x 4 patches. The reference computes all 256 patches of it
in float32 through all 14 blocks and keeps 16. vemseg computes the last block for the kept patches alone, in
bfloat16 where the processor has it, with the faster attention, and goes on to labels.

The reference's side is its encoder alone, on fields of view that are cut out already; vemseg's side is all of
``ComputedVectors.labels``, from voxels to labels.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch
from common import add_threads, conclude, interleaved, machine, parser, show, spread
from torch import Tensor

from vemseg.dense import ComputedVectors, Covering, Maker, lay_out, working_grid
from vemseg.labelling import AffineLabeller
from vemseg.models import Encoder, Machine, build_encoder, pick_device
from vemseg.models.devices import wants_bf16
from vemseg.recipe import EmbedTable, MaesterTable, load_recipe
from vemseg.volume import ArrayVolume, Intensity

TARGET = 3.0
KEPT = 4
CPU = torch.device("cpu")
CLASSES = 6


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    settings = MaesterTable()
    torch.manual_seed(0)
    ours, theirs = build_encoder(settings), build_encoder(settings).eval()
    theirs.load_state_dict(ours.state_dict())
    for block in theirs.blocks:
        block.attn.fused_attn = True
    table = EmbedTable(placement="cover-and-stride", kept=KEPT, batch=options.batch)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (1, options.edge, options.edge), dtype=np.uint8)
    number = torch.bfloat16 if wants_bf16(options.precision, CPU) else torch.float32
    source = _lay(ours, grey, table, Machine(CPU, number, options.threads, None))
    labeller = _labeller(settings.dim)
    whole = source.volume.box
    fovs = torch.from_numpy(rng.random((options.batch, 1, settings.fov, settings.fov), dtype=np.float32))
    wanted = -(-grey.size // KEPT**2)
    seconds = interleaved(
        {
            "reference": lambda: _reference(theirs, fovs, wanted),
            "vemseg": lambda: source.labels(whole, source.read(whole), labeller),
        },
        options.repetitions,
    )
    rates = {name: [grey.size / s for s in values] for name, values in seconds.items()}
    ratio = statistics.median(rates["vemseg"]) / statistics.median(rates["reference"])
    precision = str(number).removeprefix("torch.")
    show(
        f"output pixels per second, slice of {options.edge} x {options.edge} pixels",
        ["", "median", "min", "max", "ratio"],
        [
            ["reference: float32, all patches", *spread(rates["reference"]).values(), 1.0],
            [f"vemseg: {precision}, kept patches", *spread(rates["vemseg"]).values(), f"{ratio:.2f}"],
        ],
    )
    details = {name: spread(values) for name, values in rates.items()}
    details |= {"edge": options.edge, "precision": precision, "machine": machine(options.threads)}
    conclude(
        "cover_and_stride",
        ratio,
        "times the reference's pixels per second",
        f">= {TARGET}",
        ratio >= TARGET,
        details,
    )


def _options():
    made = parser(__doc__, repetitions=3)
    add_threads(made)
    made.add_argument("--edge", type=int, default=100, help="edge of the slice in pixels")
    made.add_argument("--batch", type=int, default=64, help="fields of view in one pass")
    made.add_argument("--precision", default="bf16", choices=["auto", "bf16", "fp32"], help="of vemseg")
    return made.parse_args()


def _lay(encoder: Encoder, grey, table: EmbedTable, computing: Machine) -> ComputedVectors:
    """Lay the encoder over a slice as ``vemseg segment`` does."""
    volume = ArrayVolume(grey)
    grid = working_grid(volume, 16.0)
    ready = encoder.prepare(computing.device, computing.dtype)
    layout = lay_out(ready.placements(table), grid)
    covering = Covering(ready, grid, layout, Intensity(0.0, 255.0), computing.device, table.batch)
    maker = Maker(load_recipe("maester"), "random", "random weights", None, (), ())
    return ComputedVectors(volume, (0, 1, 2), covering, maker, computing)


def _labeller(dim: int) -> AffineLabeller:
    """Return random class scores, affine in the vectors."""
    weight = torch.randn(dim, CLASSES, generator=torch.Generator().manual_seed(1))
    return AffineLabeller(weight.numpy(), np.zeros(CLASSES, np.float32))


def reference_rate(threads: int, batch: int = 64, repetitions: int = 3, device: str = "cpu") -> float:
    """Return the output pixels per second of the published schedule: float32, every patch of every FOV."""
    torch.set_num_threads(threads)
    settings, place = MaesterTable(), pick_device(device)
    encoder = build_encoder(settings).eval().to(place)
    for block in encoder.blocks:
        block.attn.fused_attn = True
    fovs = torch.rand(batch, 1, settings.fov, settings.fov, device=place)
    seconds = interleaved({"reference": lambda: _reference(encoder, fovs, batch)}, repetitions)["reference"]
    return batch * KEPT**2 / min(seconds)


@torch.inference_mode()
def _reference(encoder, fovs: Tensor, wanted: int) -> None:
    """Encode as many fields of view as the pixels need, and keep the central patches."""
    middle = torch.arange(encoder.side**2).reshape(encoder.side, encoder.side)
    low = (encoder.side - KEPT) // 2
    kept = 1 + middle[low : low + KEPT, low : low + KEPT].flatten()
    for start in range(0, wanted, len(fovs)):
        encoder.latent(fovs[: wanted - start])[:, kept].cpu().numpy()


if __name__ == "__main__":
    main()
