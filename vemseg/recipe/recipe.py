"""A recipe: its tables, its hash, its TOML text, and the settings in which two recipes differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Annotated, Self

import tomli_w
from pydantic import BeforeValidator, SerializeAsAny, model_validator

from vemseg.errors import UsageError
from vemseg.recipe.base import Table, require
from vemseg.recipe.choices import CLUSTER, MODEL
from vemseg.recipe.cluster.base import ClusterTable
from vemseg.recipe.cluster.kmeans import KMeansTable
from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.model.vit import MaesterTable
from vemseg.recipe.regions import RegionsTable
from vemseg.recipe.tables import EmbedTable, FovTable, TissueTable, TrainTable, VolumeTable


class Recipe(Table):
    """The settings of one method.

    Attributes
    ----------
    description, reference : str
        What the recipe is for, and the paper it follows. Neither counts as a setting.
    """

    description: str = ""
    reference: str = ""
    volume: VolumeTable = VolumeTable()
    model: Annotated[SerializeAsAny[ModelTable], BeforeValidator(MODEL.checked)] = MaesterTable()
    fov: FovTable = FovTable()
    tissue: TissueTable = TissueTable()
    train: TrainTable = TrainTable()
    embed: EmbedTable = EmbedTable()
    regions: RegionsTable = RegionsTable()
    cluster: Annotated[SerializeAsAny[ClusterTable], BeforeValidator(CLUSTER.checked)] = KMeansTable()

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.model.check_placement(self.embed)
        method = self.cluster.method
        needless = self.regions.wanted or not self.cluster.regions
        require(needless, f"cluster.method {method} works on regions: add --regions slic (regions.method)")
        return self

    @property
    def settings(self) -> dict[str, dict[str, object]]:
        """All settings as plain JSON types, table by table."""
        return self.model_dump(mode="json", exclude={"description", "reference"})

    def flat(self, tables: Collection[str] | None = None, without: Collection[str] = ()) -> dict[str, object]:
        """Return the settings of some tables or of all, without some keys, as ``{"table.key": value}``."""
        return {
            name: value
            for table, keys in self.settings.items()
            if tables is None or table in tables
            for key, value in keys.items()
            if (name := f"{table}.{key}") not in without
        }

    def on_vectors_of(self, encoder: Recipe) -> Recipe:
        """Return this recipe for the vectors of a model: voxels and encoder are those of the model.

        How fields of view are laid, and across which axes, stays as it is here.

        Raises
        ------
        UsageError
            Where that does not suit the model.
        """
        kept = self.embed.model_dump(include={"placement", "kept", "stride", "planes"})
        tables = {"volume": encoder.volume, "model": encoder.model}
        embed = encoder.embed.model_copy(update=kept)
        try:
            encoder.model.check_placement(embed)
        except ValueError as error:
            raise UsageError(f"the encoder does not go with this recipe: {error}") from None
        return self.model_copy(update={**tables, "embed": embed})

    @property
    def of_vectors(self) -> dict[str, object]:
        """The settings that vectors depend on besides the model; those of regions where there are any."""
        tables = ("embed", "regions") if self.regions.wanted else ("embed",)
        return self.flat(tables, without=("embed.batch",))

    @property
    def of_classes(self) -> dict[str, object]:
        """The settings that classes of given vectors depend on; those of regions where there are any."""
        return self.flat(("cluster", "regions") if self.regions.wanted else ("cluster",))

    @property
    def hash(self) -> str:
        """SHA-256 of the settings: equal for equal settings, whatever the file looked like."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """Return the complete recipe as TOML, every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def diff(a: Recipe, b: Recipe) -> dict[str, tuple[object, object]]:
    """Return the settings in which two recipes differ, as ``{"table.key": (in a, in b)}``.

    The value is ``None`` for the recipe that does not have the key, as with another kind of model.
    """
    there, wanted = a.flat(), b.flat()
    keys = dict.fromkeys([*there, *wanted])
    return {key: (there.get(key), wanted.get(key)) for key in keys if there.get(key) != wanted.get(key)}
