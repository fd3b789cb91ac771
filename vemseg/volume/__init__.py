"""Voxels on disk: TIFF and OME-Zarr, read box by box, written whole; voxel sizes in nm, intensities.

    opening      a path -> a Volume (tiff, tiff_pages, tiff_voxel_size, zarr_reading, ngff)
    base, views  what every volume can do; crops and permuted axes
    resample     a volume on a coarser or finer grid
    intensity    grey values to [0, 1]
    store        labels written block by block
    writing      the store, or a grey volume -> TIFF or OME-Zarr (tiff_writing, pyramid, ngff, publish)

Axes are z, y, x in all of it; other orders exist only inside the readers.
"""

from vemseg.volume.base import ArrayVolume, Volume
from vemseg.volume.intensity import Intensity, measure_intensity
from vemseg.volume.opening import open_volume
from vemseg.volume.publish import check_output, partial_directory
from vemseg.volume.resample import Resampled
from vemseg.volume.store import LabelStore
from vemseg.volume.views import Cropped, Permuted
from vemseg.volume.writing import finish_labels, write_volume

__all__ = [
    "ArrayVolume",
    "Cropped",
    "Intensity",
    "LabelStore",
    "Permuted",
    "Resampled",
    "Volume",
    "check_output",
    "finish_labels",
    "measure_intensity",
    "open_volume",
    "partial_directory",
    "write_volume",
]
