"""Encoders and objectives, by the ``kind`` a recipe names (``recipe.KINDS``).

    layers           parts that several models share
    vit, unet, classical
                     encoders
    planes           an encoder of planes, across all three axes
    filtered         filters beside an encoder
    mae, self_distilled, his4mae, sdae, invariance, distilled
                     objectives: modules with ``fov``, ``encoder``, ``forward(images, generator)``,
                     ``after_step``
    codebook         vectors that tokens are replaced by
    here             kind -> builder; weights in and out

An encoder has ``fov``, ``patch``, ``dim``, ``halo`` and ``encode((b, 1, z, y, x) in [0, 1], kept) ->
(b, gz, gy, gx, dim)``; its weights are what a run directory keeps.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vemseg.errors import InputError, MissingError, UsageError
from vemseg.models.codebook import Codebook
from vemseg.models.distilled import DenseTeacher, PlaneTeacher
from vemseg.models.filtered import Filtered
from vemseg.models.layers import choose_attention, wants_bf16
from vemseg.models.mae import MaskedAutoencoder
from vemseg.models.planes import ThreePlanes
from vemseg.models.unet import UNetEncoder
from vemseg.recipe import KINDS, MaesterTable, ModelTable, Recipe
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

CODES = "codebook.codes"
"""Beside the encoder's weights, of a model that learns a codebook."""


def build_encoder(model: ModelTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> nn.Module:
    """Return the untrained encoder of a recipe's ``[model]`` table.

    Parameters
    ----------
    model : ModelTable
        The settings.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest; only 3-D encoders ask for it.
    """
    made: nn.Module = resolve_name(KINDS[model.kind].encoder)(model, spacing)
    return made


def build_objective(model: ModelTable, seed: int) -> nn.Module:
    """Return the module that training minimises for a recipe's ``[model]`` table, initialised by a seed.

    Raises
    ------
    UsageError
        Where the kind of model has nothing to train.
    """
    objective = KINDS[model.kind].objective
    if objective is None:
        raise UsageError(f"model.kind '{model.kind}' needs no training: use it with 'segment' right away")
    torch.manual_seed(seed)
    made: nn.Module = resolve_name(objective)(model)
    return made


def differing_encoder(model: ModelTable, other: ModelTable) -> list[str]:
    """Return the settings, such as ``model.dim``, that keep one's weights from being the other's encoder."""
    if KINDS[model.kind].encoder != KINDS[other.kind].encoder:
        return ["model.kind"]
    return [f"model.{key}" for key in model.encoder_settings if getattr(model, key) != getattr(other, key)]


def build_distillation(model: ModelTable, seed: int, teacher: Any, stride: int) -> nn.Module:
    """Return the module that training minimises for a student, initialised by a seed.

    Parameters
    ----------
    model : ModelTable
        The student's settings; ``dim`` is the teacher's.
    seed : int
    teacher : encoder
        Ready for inference.
    stride : int
        Pixels from one of its fields of view to the next, where it has such.

    Raises
    ------
    UsageError
        Where the kind of model cannot be taught.
    """
    student = KINDS[model.kind].student
    if student is None:
        raise UsageError(f"a teacher teaches a dense encoder, not a '{model.kind}': add -c vemseg")
    torch.manual_seed(seed)
    dense = teacher.halo is not None
    looking = DenseTeacher(teacher) if dense else PlaneTeacher(teacher, stride)
    made: nn.Module = resolve_name(student)(model, looking)
    return made


def save_encoder(path: Path, objective: Any, metadata: dict[str, Any]) -> None:
    """Write the weights of an objective's encoder, and its codebook where it has one, float32."""
    tensors = dict(objective.encoder.state_dict())
    if isinstance(codebook := getattr(objective, "codebook", None), Codebook):
        tensors[CODES] = codebook.codes
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
