"""The dense encoder, taught by another model: it learns to give the teacher's vectors in the same places.

Teacher and student encode the same region, the teacher as it would in a volume. The teacher's vectors are
interpolated between the centres of its patches, as its scores would be, to the places of the student's
vectors. Both are then compared in units of the teacher's standard deviations: by mean squared error and by
cosine.

Vectors are compared in the two middle slices of a region, which belong to one section of an anisotropic
volume. A teacher that encodes single planes is shown one of the two at random, so that the student learns the
mean of both. A teacher that looks across slices gets the same slices as the student, one short voxel edge
apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vemseg.batch import Batch
from vemseg.errors import UsageError
from vemseg.models.encoder import Encoder
from vemseg.models.objective import Objective
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.modules import Keeps
from vemseg.recipe import UNetTable
from vemseg.tiling import Placement

LEAST_SPREAD = 1e-3
"""A standard deviation counts as at least this share of the largest one."""
COMPARED = 32
"""Vectors of a teacher with a halo are compared in a region at least this many voxels wide."""


@dataclass(frozen=True)
class Targets:
    """The vectors of a teacher in a region, and the lattice on which they lie.

    Attributes
    ----------
    vectors : Tensor float32 (b, gy, gx, d)
    first : (float, float)
        Row and column of the first vector, in pixels.
    pitch : int
        Pixels from one vector to the next.
    """

    vectors: Tensor
    first: tuple[float, float]
    pitch: int


class Teacher(Protocol):
    """A frozen encoder, and how it looks at a region."""

    slices: int
    """How many slices of a region it needs; an even number."""

    edge: int
    """Edge in pixels of the smallest region that it can encode."""

    unit: int
    """The edge of a region must be a multiple of this many pixels."""

    def look(self, images: Tensor, generator: torch.Generator, *, both: bool) -> Targets:
        """Return its vectors in the two middle slices of regions (b, 1, z, y, x).

        A teacher of single planes returns the mean over ``both`` slices, or the vectors of one slice that is
        drawn for each region.
        """


class PlaneTeacher:
    """A teacher with fixed fields of view in one plane, laid side by side at a random place of the region.

    Parameters
    ----------
    encoder : Encoder
        Ready for inference.
    stride : int
        Pixels from one field of view to the next, a multiple of the patch. Of each field of view only the
        middle ``stride`` pixels count, as in a volume.
    """

    slices, unit = 2, 1

    def __init__(self, encoder: Encoder, stride: int) -> None:
        self.encoder = encoder
        self.edge, self.patch = encoder.fov[1], encoder.patch[1]
        self.stride = stride
        self.kept = Placement(self.edge, self.patch, stride, self.patch).kept

    def look(self, images: Tensor, generator: torch.Generator, *, both: bool) -> Targets:
        """Return its vectors in the two middle slices, or in one, of regions (b, 1, z, y, x)."""
        middle = _middle(images, 0)[:, 0]
        if not both:
            drawn = torch.randint(2, (len(middle),), generator=generator)
            middle = middle[torch.arange(len(middle)), drawn.to(middle.device)][:, None]
        room = images.shape[-1] - self.edge
        along = 1 + room // self.stride
        y, x = torch.randint(0, room % self.stride + 1, (2,), generator=generator).tolist()
        used = self.edge + (along - 1) * self.stride
        fovs = middle[:, :, y : y + used, x : x + used]
        fovs = fovs.unfold(2, self.edge, self.stride).unfold(3, self.edge, self.stride)
        tokens = self.encoder.encode(fovs.flatten(0, 3)[:, None, None], (slice(None), self.kept, self.kept))
        grids = tokens[:, 0].float().reshape(*fovs.shape[:4], *tokens.shape[2:]).mean(dim=1)
        vectors = grids.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        centre = self.kept.start * self.patch + (self.patch - 1) / 2
        return Targets(vectors, (y + centre, x + centre), self.patch)


class DenseTeacher:
    """A teacher that encodes windows of any size; its vectors within a halo of the sides do not count.

    Raises
    ------
    UsageError
        Where the teacher's patches are thicker than the two slices that are compared.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.deep, self.patch, _ = encoder.patch
        if self.deep > 2:
            raise UsageError(f"a teacher's patches may be two slices thick, not {self.deep}")
        across, within, _ = encoder.halo
        self.slices = 2 + 2 * across
        self.margin = -(-within // self.patch)
        self.unit = math.lcm(encoder.align[1], self.patch)
        self.edge = 2 * within + COMPARED

    def look(self, images: Tensor, generator: torch.Generator, *, both: bool) -> Targets:
        """Return its vectors in the two middle slices of regions (b, 1, z, y, x)."""
        across = self.slices // 2 - 1
        rows = slice(self.margin, images.shape[-1] // self.patch - self.margin)
        planes = slice(across // self.deep, (across + 2) // self.deep)
        vectors = self.encoder.encode(_middle(images, across), (planes, rows, rows)).float().mean(dim=1)
        first = self.margin * self.patch + (self.patch - 1) / 2
        return Targets(vectors, (first, first), self.patch)


class ScaledHead(Keeps, nn.Conv2d):
    """The student's last layer: it gives standardised vectors in training, and unscaled ones once saved.

    Attributes
    ----------
    mean, spread : Tensor float32 (d,)
        Mean and standard deviation of the teacher's vectors, from the first batch of regions.
    known : Tensor bool
        Whether mean and standard deviation are known yet.
    """

    exact = ("mean", "spread")
    on_host = ("known",)

    mean: Tensor
    spread: Tensor
    known: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim, 1)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("known", torch.tensor(False))

    def learn_scale(self, vectors: Tensor) -> None:
        """Take mean and standard deviation from a teacher's vectors (n, d), once."""
        if not self.known:
            spread = vectors.double().std(dim=0)
            self.mean.copy_(vectors.double().mean(dim=0))
            self.spread.copy_(spread.clamp_min(LEAST_SPREAD * spread.max()).clamp_min(1e-12))
            self.known.fill_(True)

    def standardised(self, vectors: Tensor) -> Tensor:
        """Convert the teacher's vectors (..., d) to standardised ones."""
        return (vectors - self.mean) / self.spread

    def restored(self, vectors: Tensor) -> Tensor:
        """Convert standardised vectors (..., d) to the units of the teacher."""
        return vectors * self.spread + self.mean

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        assert self.bias is not None
        with torch.no_grad():
            destination[f"{prefix}weight"] = self.weight * self.spread[:, None, None, None]
            destination[f"{prefix}bias"] = self.bias * self.spread + self.mean


class Distillation(Objective):
    """Mean squared error plus 1 - cosine between standardised vectors of student and teacher.

    Parameters
    ----------
    settings : UNetTable
        Settings of the student; ``dim`` equals the teacher's.
    teacher : Teacher
        It is neither trained nor saved, and its device and precision do not change.
    """

    encoder: UNetEncoder

    def __init__(self, settings: UNetTable, teacher: Teacher) -> None:
        super().__init__()
        self.encoder = UNetEncoder(settings)
        self.encoder.head = ScaledHead(settings.widths[0], settings.dim)
        self.teacher = teacher
        unit = math.lcm(self.encoder.align[1], teacher.unit)
        edge = -(-max(settings.fov, teacher.edge) // unit) * unit
        self.across = settings.slices // 2 - 1
        self.window = (max(settings.slices, teacher.slices), edge, edge)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss``, ``error`` and ``cosine`` of a batch.

        Parameters
        ----------
        batch : Batch
            Regions, (b, 1, z, y, x).
        generator : torch.Generator
            On the CPU; decides where a teacher with fixed fields of view looks.
        """
        theirs, ours = self._pair(batch.images, generator, both=False)
        cosine = cosine_similarity(ours, theirs, dim=-1).mean()
        error = (ours - theirs).square().mean()
        return {"loss": error + 1 - cosine, "error": error.detach(), "cosine": cosine.detach()}

    @torch.no_grad()
    def vectors(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return vectors of teacher and student in the same places, in the teacher's units: (n, d) twice."""
        theirs, ours = self._pair(batch.images, generator, both=True)
        head = self._head
        return head.restored(theirs).flatten(0, -2), head.restored(ours).flatten(0, -2)

    @property
    def _head(self) -> ScaledHead:
        head = self.encoder.head
        assert isinstance(head, ScaledHead)
        return head

    def _pair(self, images: Tensor, generator: torch.Generator, *, both: bool) -> tuple[Tensor, Tensor]:
        """Return standardised vectors of teacher and student on the student's lattice: (b, y, x, d) twice."""
        with torch.no_grad():
            targets = self.teacher.look(images, generator, both=both)
            self._head.learn_scale(targets.vectors.flatten(0, -2))
        kept, mixed = zip(*(_onto(targets, axis, images.shape[-1]) for axis in range(2)), strict=True)
        rows, columns = (weights.to(images.device) for weights in mixed)
        theirs = torch.einsum("yi,bijd,xj->byxd", rows, targets.vectors, columns)
        slabs = _middle(images, self.across)[:, 0].to(self._head.weight.dtype)
        trunk = self.encoder.trunk(slabs.contiguous(memory_format=torch.channels_last))
        ours = self._head(trunk[:, :, kept[0], kept[1]]).permute(0, 2, 3, 1)
        return self._head.standardised(theirs), ours.float()


def taught_by(settings: UNetTable, teacher: Encoder, stride: int) -> Distillation:
    """Return the objective with which an encoder teaches a student.

    Parameters
    ----------
    settings : UNetTable
        Settings of the student; ``dim`` equals the teacher's.
    teacher : Encoder
        Ready for inference.
    stride : int
        Pixels from one of the teacher's fields of view to the next, if it has fixed ones.

    Raises
    ------
    UsageError
        Where the teacher's fields of view are fixed and thicker than a plane.
    """
    if teacher.fixed_fov and teacher.fov[0] > 1:
        raise UsageError("a teacher with fixed fields of view must look at single planes, not at cubes")
    view = PlaneTeacher(teacher, stride) if teacher.fixed_fov else DenseTeacher(teacher)
    return Distillation(settings, view)


def _middle(images: Tensor, across: int) -> Tensor:
    """Return the two middle slices of (b, 1, z, y, x), and ``across`` more on each side."""
    middle = images.shape[2] // 2
    return images[:, :, middle - 1 - across : middle + 1 + across]


def _onto(targets: Targets, axis: int, edge: int) -> tuple[slice, Tensor]:
    """Return which of the student's vectors lie between the teacher's along an axis, and how to interpolate.

    Returns
    -------
    kept : slice
        The student's vectors, among those of a region of ``edge`` pixels.
    weights : Tensor float32 (kept, g)
        Linear interpolation from the teacher's ``g`` vectors to these.
    """
    n = targets.vectors.shape[1 + axis]
    places = (np.arange(edge // PATCH) * PATCH + (PATCH - 1) / 2 - targets.first[axis]) / targets.pitch
    inside = np.flatnonzero((places >= 0) & (places <= n - 1))
    places = places[inside]
    left = np.minimum(places.astype(np.int64), max(n - 2, 0))
    weights = np.zeros((len(places), n), np.float32)
    pick = np.arange(len(places))
    weights[pick, left] = 1 - (places - left)
    if n > 1:
        weights[pick, left + 1] = places - left
    return slice(int(inside[0]), int(inside[-1]) + 1), torch.from_numpy(weights)
