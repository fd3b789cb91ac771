"""The table of filters that take the place of a trained encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vemseg.recipe.base import Positive
from vemseg.recipe.model.base import ModelTable


class ClassicalTable(ModelTable):
    """Filters in scale space instead of a trained encoder.

    The filters at every scale are the Gaussian, its gradient magnitude, its Laplacian and the local standard
    deviation, in 3-D.

    Attributes
    ----------
    sigmas : tuple of float
        Scales in working voxels (``volume.voxel_size``).
    truncate : float
        Distance at which the filters are cut off, in sigmas.
    """

    kind: Literal["classical"] = "classical"
    sigmas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 4.0, 8.0)
    truncate: Positive = 3.0
