"""How well a segmentation agrees with a reference: from one table of joint counts to scores.

Arrays only: nothing here knows files, volumes or models. Every protocol works on the *contingency table*
``C[p, g]``, the number of voxels with cluster id ``p`` in the prediction and class id ``g`` in the reference.
It takes one pass over the voxels, and tables of blocks add up to the table of the volume:

1. ``contingency`` per block, inside the caller's mask; the caller adds the tables.
2. ``drop_classes`` takes voxels of classes that are not to be judged out of the table.
3. a protocol gives each cluster a class, or none: ``match_hungarian`` (Han et al., CVPRW 2022);
   ``merge_majority``, ``merge_greedy``, ``merge_oracle``, ``merge_manual`` (for the merge step of MAESTER,
   CVPR 2023, whose rule is not published); ``match_identity`` for predictions that are classes already.
4. ``score`` under that assignment; ``slice_dice`` for its course through a stack.

Every protocol but ``match_identity`` looks at the reference; ``Assignment.uses_reference`` says so and
belongs beside each number that is reported.

A class is *present* if the reference holds a voxel of it. Means run over present classes only. A class that
neither the reference nor the prediction holds has no score (NaN).
"""

from vemseg.metrics.protocols import (
    ORACLE_LIMIT,
    PROTOCOLS,
    Assignment,
    match_hungarian,
    match_identity,
    merge_greedy,
    merge_majority,
    merge_manual,
    merge_oracle,
    merged,
)
from vemseg.metrics.scores import MEASURES, Scores, score, slice_dice
from vemseg.metrics.table import (
    Labels,
    Table,
    contingency,
    dice_matrix,
    drop_classes,
    to_index,
)

__all__ = [
    "MEASURES",
    "ORACLE_LIMIT",
    "PROTOCOLS",
    "Assignment",
    "Labels",
    "Scores",
    "Table",
    "contingency",
    "dice_matrix",
    "drop_classes",
    "match_hungarian",
    "match_identity",
    "merge_greedy",
    "merge_majority",
    "merge_manual",
    "merge_oracle",
    "merged",
    "score",
    "slice_dice",
    "to_index",
]
