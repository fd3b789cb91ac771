"""Pictures of volumes, labels and results: arrays -> figures that could go into a paper.

Arrays, voxel sizes and names come in, a matplotlib ``Figure`` goes out; ``save`` writes it in one piece. No
pyplot, so no global state: functions may be called from threads and never open a window. Nothing here
knows files of volumes, models or how a score is made.

- ``colours``: the palette, the colour of each label
- ``pixels``: arrays -> RGB arrays (``overlay``, ``error_map``, ``heat``)
- ``look``: how a volume is drawn, as a user says it
- ``layout``: panels at one physical scale, scale bars, legends, ``save``
- ``pictures``: ``three_planes``, ``montage``, ``comparison``, ``depths``,
  ``reconstructions``, ``scenery``
- ``plots``: ``confusion``, ``curve``, ``number_curve``, ``slice_dice``

Label 0 is background: transparent, without an entry in a legend.
"""

from matplotlib.figure import Figure

from vemseg.drawing.colours import palette
from vemseg.drawing.layout import save, scale_bar_length
from vemseg.drawing.look import Look
from vemseg.drawing.pictures import (
    Manner,
    comparison,
    depths,
    montage,
    reconstructions,
    scenery,
    three_planes,
)
from vemseg.drawing.pixels import error_map, gif, grey, heat, overlay
from vemseg.drawing.plots import confusion, curve, number_curve, slice_dice

__all__ = [
    "Figure",
    "Look",
    "Manner",
    "comparison",
    "confusion",
    "curve",
    "depths",
    "error_map",
    "gif",
    "grey",
    "heat",
    "montage",
    "number_curve",
    "overlay",
    "palette",
    "reconstructions",
    "save",
    "scale_bar_length",
    "scenery",
    "slice_dice",
    "three_planes",
]
