"""Makes encoders and objectives from the ``[model]`` table of a recipe, by ``recipe.KINDS``."""

from __future__ import annotations

from pkgutil import resolve_name

import torch

from vemseg.errors import UsageError
from vemseg.models.encoder import Encoder, Spacing
from vemseg.models.objective import Objective
from vemseg.recipe import KINDS, METHODS, ClusterTable, ModelTable


def build_encoder(table: ModelTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> Encoder:
    """Return the untrained encoder of a recipe's ``[model]`` table.

    Parameters
    ----------
    table : ModelTable
        Its settings.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest; only 3-D encoders use it.
    """
    encoder: Encoder = resolve_name(KINDS[table.kind].encoder)(table, spacing)
    return encoder


def build_objective(table: ModelTable, seed: int) -> Objective:
    """Return the objective that trains the model of a ``[model]`` table, initialised by a seed.

    Raises
    ------
    UsageError
        Where the model needs no training.
    """
    name = KINDS[table.kind].objective
    if name is None:
        raise UsageError(f"model.kind '{table.kind}' needs no training: use it with 'segment' right away")
    return _seeded(seed, name, table)


def build_student(table: ModelTable, seed: int, teacher: Encoder, stride: int) -> Objective:
    """Return the objective with which another encoder teaches a model of this kind, initialised by a seed.

    Parameters
    ----------
    table : ModelTable
        The student's settings; its vectors are as long as the teacher's.
    teacher : Encoder
        Ready for inference.
    stride : int
        Pixels from one of the teacher's fields of view to the next, if it has fixed ones.

    Raises
    ------
    UsageError
        Where a model of this kind cannot be taught by another encoder.
    """
    name = KINDS[table.kind].student
    if name is None:
        raise UsageError(f"a teacher teaches a dense encoder, not a '{table.kind}': add -c vemseg")
    return _seeded(seed, name, table, teacher, stride)


def build_self_training(table: ModelTable, seed: int, start: Encoder, found: int) -> Objective:
    """Return the objective with which an encoder learns the classes found in a volume.

    Parameters
    ----------
    table : ModelTable
        Settings of the encoder.
    seed : int
        Seed of the weights that ``start`` lacks.
    start : Encoder
        The encoder to begin with.
    found : int
        Number of classes found.
    """
    name = KINDS[table.kind].self_training
    if name is None:
        raise UsageError(f"a '{table.kind}' knows no classes, so it cannot train itself on those it finds")
    return _seeded(seed, name, table, start, found)


def build_labeller(table: ClusterTable, seed: int, encoder: Encoder, dim: int) -> Objective:
    """Return the objective that trains the labeller of a ``[cluster]`` table, initialised by a seed.

    Parameters
    ----------
    table : ClusterTable
        Its settings.
    seed : int
    encoder : Encoder
        What vectors come from; it is not trained.
    dim : int
        Length of the vectors that are labelled.

    Raises
    ------
    UsageError
        Where labellers of this method are fitted, not trained.
    """
    name = METHODS[table.method].objective
    if name is None:
        trained = ", ".join(method for method, known in METHODS.items() if known.objective)
        raise UsageError(
            f"--encoder trains a labeller on the vectors of a model, and cluster.method {table.method} is "
            f"fitted by 'segment': add -c {trained}"
        )
    return _seeded(seed, name, table, encoder, dim)


def _seeded(seed: int, name: str, *given: object) -> Objective:
    """Return the objective that ``module:name`` makes of what is given, its weights drawn by a seed."""
    torch.manual_seed(seed)
    objective: Objective = resolve_name(name)(*given)
    return objective


def differing_encoder(table: ModelTable, other: ModelTable) -> list[str]:
    """Return the settings, such as ``model.dim``, in which the encoders of two tables differ."""
    if type(table).encoder_settings != type(other).encoder_settings or not table.encoder_settings:
        return [] if table.kind == other.kind else ["model.kind"]
    return [f"model.{key}" for key in table.encoder_settings if getattr(table, key) != getattr(other, key)]
