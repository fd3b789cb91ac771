"""Voxels on disk, read box by box, written whole: their sizes in nm, their places, their intensities.

    opening      a path or address -> a Volume, by the format that recognises it (tiff and its helpers
                 tiff_chain, tiff_forms, tiff_pages, tiff_ome, tiff_stack, tiff_decoding, tiff_shown and
                 tiff_description; zarr_reading, zarr_nodes, hdf5, mrc, nifti, slices, remote, precomputed,
                 places, bigdataviewer)
    sniffing     what lies at a path that no format recognises, and what to do about it
    stored       volumes in arrays of any number of axes (frame, conventions, layout, ngff)
    units, dtypes, cache, optional
                 what readers share: lengths in nm, types of voxels, decoded pieces in memory, libraries that
                 only some formats need
    base, views  what every volume can do; crops and permuted axes
    resample     a volume on a coarser or finer grid
    thinned      every so many voxels of a volume, for pictures
    coarser      labels at a level that fits into memory, for surfaces
    inputs       volumes as the verbs begin with them
    specimen     which voxels show something, where not all do: a mask, or what a constant background leaves
                 (background)
    intensity    grey values to [0, 1]
    meaning      whether voxels are labels or grey values, as far as that can be told
    store        labels written block by block, and coarser levels beside them (growing); what is written
                 survives a power failure (durable)
    form         how and where a result is written, beside what its name says (labels_of_images)
    writing      the store, or a grey volume -> TIFF, OME-Zarr, HDF5 or precomputed, by the format that the
                 name stands for (content, tiff_writing, zarr_writing, hdf5_writing, precomputed_writing,
                 pyramid)
    about        what a written volume says about itself
    renaming     other names and colours for labels that are finished (tiff_tags)

Axes are z, y, x in all of it; other orders exist only inside the readers.
"""

from vemseg.volume.about import About, LabelInfo, Record
from vemseg.volume.background import constant_background
from vemseg.volume.base import ArrayVolume, Specimen, Volume
from vemseg.volume.coarser import Coarser, shrunk
from vemseg.volume.durable import Durable
from vemseg.volume.form import LabelForm, parse_output
from vemseg.volume.growing import grow
from vemseg.volume.inputs import (
    crop_of,
    describe,
    identity,
    intensity_of,
    open_grey,
    open_labels,
    sharp_plane_first,
)
from vemseg.volume.intensity import Intensity, filled, measure_intensity
from vemseg.volume.labels_of_images import LabelsOfImage
from vemseg.volume.layout import Choice
from vemseg.volume.meaning import check_grey, check_labels
from vemseg.volume.opening import FORMATS, Format, absolute, open_volume, record
from vemseg.volume.pyramid import Plan
from vemseg.volume.remote import is_there
from vemseg.volume.renaming import copied, rename_labels
from vemseg.volume.resample import Resampled, looked_up
from vemseg.volume.specimen import Background, marked_specimen
from vemseg.volume.store import LabelStore
from vemseg.volume.thinned import Thinned, planes, sections
from vemseg.volume.views import Cropped, Nearest, Overlay, Permuted
from vemseg.volume.writing import finish_grey, finish_labels, write_volume

__all__ = [
    "FORMATS",
    "About",
    "ArrayVolume",
    "Background",
    "Choice",
    "Coarser",
    "Cropped",
    "Durable",
    "Format",
    "Intensity",
    "LabelForm",
    "LabelInfo",
    "LabelStore",
    "LabelsOfImage",
    "Nearest",
    "Overlay",
    "Permuted",
    "Plan",
    "Record",
    "Resampled",
    "Specimen",
    "Thinned",
    "Volume",
    "absolute",
    "check_grey",
    "check_labels",
    "constant_background",
    "copied",
    "crop_of",
    "describe",
    "filled",
    "finish_grey",
    "finish_labels",
    "grow",
    "identity",
    "intensity_of",
    "is_there",
    "looked_up",
    "marked_specimen",
    "measure_intensity",
    "open_grey",
    "open_labels",
    "open_volume",
    "parse_output",
    "planes",
    "record",
    "rename_labels",
    "sections",
    "sharp_plane_first",
    "shrunk",
    "write_volume",
]
