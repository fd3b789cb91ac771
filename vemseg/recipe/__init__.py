"""The settings of one method: TOML files read into frozen, checked tables.

This is the only place where a default is written. An unknown key, a wrong type or a value out of range is a
``UsageError`` that names the key and where it stands. Recipes that ship with the package are called by name,
a recipe may extend one other, and single keys are set with ``table.key=value``.
"""

from vemseg.recipe.loading import DEFAULT_RECIPE, load_recipe, override, parse_recipe, shipped
from vemseg.recipe.models import (
    MODEL_KINDS,
    ClassicalTable,
    His4maeTable,
    MaesterTable,
    ModelTable,
    SdaeTable,
    SelfDistilledTable,
    UNetTable,
    ViTTable,
)
from vemseg.recipe.tables import (
    ClusterTable,
    EmbedTable,
    EvaluateTable,
    FovTable,
    Recipe,
    TrainTable,
    VolumeTable,
    diff,
)

__all__ = [
    "DEFAULT_RECIPE",
    "MODEL_KINDS",
    "ClassicalTable",
    "ClusterTable",
    "EmbedTable",
    "EvaluateTable",
    "FovTable",
    "His4maeTable",
    "MaesterTable",
    "ModelTable",
    "Recipe",
    "SdaeTable",
    "SelfDistilledTable",
    "TrainTable",
    "UNetTable",
    "ViTTable",
    "VolumeTable",
    "diff",
    "load_recipe",
    "override",
    "parse_recipe",
    "shipped",
]
