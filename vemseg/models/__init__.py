"""Encoders and objectives, by the ``kind`` a recipe names.

    layers           parts that several models share
    vit, unet, classical
                     encoders
    objective        what training asks of an objective
    planes           an encoder of planes, across all three axes
    filtered         filters beside an encoder
    mae, self_distilled, his4mae, sdae, invariance, distilled
                     objectives
    codebook         vectors that tokens are replaced by
    here             kind -> builder; weights in and out

An encoder has ``fov``, ``patch``, ``dim``, ``halo`` and ``encode((b, 1, z, y, x) in [0, 1], kept) ->
(b, gz, gy, gx, dim)``; its weights are what a run directory keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vemseg.errors import InputError, MissingError, UsageError
from vemseg.models.classical import ClassicalEncoder
from vemseg.models.codebook import CODES
from vemseg.models.distilled import DenseTeacher, Distillation, PlaneTeacher
from vemseg.models.filtered import Filtered
from vemseg.models.his4mae import His4mae
from vemseg.models.invariance import Invariance
from vemseg.models.layers import choose_attention, wants_bf16
from vemseg.models.mae import MaskedAutoencoder
from vemseg.models.objective import Objective
from vemseg.models.planes import ThreePlanes
from vemseg.models.sdae import Sdae
from vemseg.models.unet import UNetEncoder
from vemseg.models.vit import ViTEncoder
from vemseg.recipe import ClassicalTable, MaesterTable, Recipe, UNetTable, ViTTable
from vemseg.run import load_tensors, save_tensors

__all__ = [
    "Filtered",
    "ThreePlanes",
    "build_distillation",
    "build_encoder",
    "build_objective",
    "differing_encoder",
    "for_inference",
    "import_maester",
    "load_codes",
    "load_encoder",
    "save_encoder",
]

Spacing = tuple[float, float, float]

REFERENCE_DECODER = {
    "decoder_embed": "embed",
    "mask_token": "mask_token",
    "decoder_pos_embed": "pos_embed",
    "decoder_blocks": "blocks",
    "decoder_norm": "norm",
    "decoder_pred": "pred",
}
"""Names of the decoder's parts in the reference code of MAESTER, and here."""

OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "maester": MaskedAutoencoder,
    "his4mae": His4mae,
    "sdae": Sdae,
    "unet": Invariance,
}
"""What training minimises, by kind of model."""

ENCODER_SETTINGS: dict[type[Any], tuple[str, ...]] = {
    ViTTable: ("fov", "patch", "dim", "depth", "heads", "mlp_ratio", "pos_weight"),
    UNetTable: ("slices", "widths", "layers", "dim"),
}
"""Settings that the weights of a trained encoder are bound to, by the table that has them; the others are the
objective's."""


def build_encoder(model: Any, spacing: Spacing = (1.0, 1.0, 1.0)) -> nn.Module:
    """Return the untrained encoder of a recipe's ``[model]`` table.

    Parameters
    ----------
    model : ViTTable, UNetTable or ClassicalTable
        The settings.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest; only 3-D encoders ask for it.
    """
    if isinstance(model, ClassicalTable):
        return ClassicalEncoder(model, spacing)
    if isinstance(model, ViTTable):
        return ViTEncoder(model)
    if isinstance(model, UNetTable):
        return UNetEncoder(model, spacing)
    raise UsageError(f"no encoder for model.kind '{model.kind}'")


def build_objective(model: Any, seed: int) -> Objective:
    """Return the module that training minimises for a recipe's ``[model]`` table, initialised by a seed."""
    if model.kind not in OBJECTIVES:
        raise UsageError(f"model.kind '{model.kind}' needs no training: use it with 'segment' right away")
    torch.manual_seed(seed)
    return OBJECTIVES[model.kind](model)


def differing_encoder(model: Any, other: Any) -> list[str]:
    """Return the settings, such as ``model.dim``, that keep one's weights from being the other's encoder."""
    for table, keys in ENCODER_SETTINGS.items():
        if isinstance(model, table) and isinstance(other, table):
            return [f"model.{key}" for key in keys if getattr(model, key) != getattr(other, key)]
    return [] if model.kind == other.kind else ["model.kind"]


def build_distillation(model: Any, seed: int, teacher: Any, stride: int) -> Distillation:
    """Return the module that training minimises for a student, initialised by a seed.

    Parameters
    ----------
    model : UNetTable
        The student's settings; ``dim`` is the teacher's.
    seed : int
    teacher : encoder
        Ready for inference.
    stride : int
        Pixels from one of its fields of view to the next, where it has such.
    """
    torch.manual_seed(seed)
    dense = teacher.halo is not None
    return Distillation(model, DenseTeacher(teacher) if dense else PlaneTeacher(teacher, stride))


def save_encoder(path: Path, objective: Objective, metadata: dict[str, Any]) -> None:
    """Write the weights of an objective's encoder, and what it saves beside them, float32."""
    tensors = objective.encoder.state_dict() | objective.tensors()
    arrays = {name: value.detach().float().cpu().numpy() for name, value in tensors.items()}
    save_tensors(path, arrays, metadata)


def load_codes(weights: Path | None) -> NDArray[np.float32] | None:
    """Return the codebook (codes, dim) beside an encoder's weights; None where there is none."""
    if weights is None or weights.suffix != ".safetensors" or not weights.is_file():
        return None
    return load_tensors(weights)[0].get(CODES)


def load_encoder(recipe: Recipe, weights: Path | None, spacing: Spacing = (1.0, 1.0, 1.0)) -> nn.Module:
    """Return an encoder with its weights, in float32, on the CPU.

    Parameters
    ----------
    recipe : Recipe
        What the encoder is.
    weights : Path or None
        A safetensors file as :func:`save_encoder` writes it, in any precision; None for an encoder that is
        not trained.
    spacing : (float, float, float)
        As for :func:`build_encoder`.

    Raises
    ------
    MissingError
        Where the file is not there.
    InputError
        Where its tensors are not those of this encoder.
    """
    encoder = build_encoder(recipe.model, spacing)
    if weights is None:
        return encoder
    if not weights.is_file():
        raise MissingError(f"no weights at {weights}: train the run to its first checkpoint")
    arrays, _ = load_tensors(weights)
    arrays.pop(CODES, None)
    _load_state(encoder, {name: torch.from_numpy(value).float() for name, value in arrays.items()}, weights)
    return encoder


def for_inference(encoder: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Bring an encoder to a device and a precision ("auto", "bf16", "fp32"), with its fastest attention."""
    choose_attention(encoder, device, training=False)
    if isinstance(encoder, UNetEncoder):
        encoder.prepare()
    dtype = torch.bfloat16 if wants_bf16(precision, device) else torch.float32
    return encoder.to(device, dtype).eval().requires_grad_(False)


def import_maester(
    path: Path, heads: int = 1, decoder_heads: int = 8, pos_weight: float = 0.08
) -> tuple[MaesterTable, MaskedAutoencoder]:
    """Read a checkpoint of the reference code of MAESTER (a ``.pt`` state dict).

    Sizes follow from the tensors; what leaves no trace in them is given.

    Parameters
    ----------
    path : Path
        Opened with ``weights_only=True``: nothing in it is executed.
    heads, decoder_heads : int
        Attention heads; the paper's by default.
    pos_weight : float
        Weight of the encoder's positions; the paper's by default.

    Returns
    -------
    settings : MaesterTable
        The ``[model]`` table of a recipe with these sizes.
    objective : MaskedAutoencoder
        With the checkpoint's weights, float32.

    Raises
    ------
    InputError
        Where the file is no such checkpoint.
    """
    state = _read_pt(path)
    try:
        dim, _, _, patch = state["patch_embed.proj.weight"].shape
        side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        settings = MaesterTable(
            fov=side * patch,
            patch=patch,
            dim=dim,
            depth=_count(state, "blocks"),
            heads=heads,
            mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
            pos_weight=pos_weight,
            decoder_dim=state["decoder_embed.weight"].shape[0],
            decoder_depth=_count(state, "decoder_blocks"),
            decoder_heads=decoder_heads,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: no MAESTER checkpoint ({error})") from None
    objective = MaskedAutoencoder(settings)
    _load_state(objective, {_our_name(name): value.float() for name, value in state.items()}, path)
    return settings, objective


def _read_pt(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = type(error).__name__
        raise InputError(f"{path}: no checkpoint, or one that holds more than tensors ({reason})") from None
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state dict of tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _our_name(name: str) -> str:
    head, _, rest = name.partition(".")
    if head in REFERENCE_DECODER:
        return f"decoder.{REFERENCE_DECODER[head]}" + (f".{rest}" if rest else "")
    return f"encoder.{name}"


def _count(state: dict[str, Tensor], blocks: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{blocks}."))


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not the weights of this model ({reason[:200]})") from None
