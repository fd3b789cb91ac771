"""The form in which a result is written: what has to be known beside its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vemseg.errors import UsageError
from vemseg.foreign import quoted
from vemseg.names import is_url, output_format
from vemseg.volume.base import Volume
from vemseg.volume.hdf5_writing import INNER, check_own_file
from vemseg.volume.labels_of_images import LabelsOfImage, factors_of
from vemseg.volume.ngff import FORMATS_OF_ZARR, VERSION
from vemseg.volume.optional import needed
from vemseg.volume.pyramid import Plan, majority, mean

_INSIDE = re.compile(r"(?P<file>.+\.(?:h5|hdf5)):?/(?P<inner>[^/].*)", re.IGNORECASE)
_LIBRARIES = {"hdf5": "h5py", "precomputed": "tensorstore"}


@dataclass(frozen=True)
class LabelForm:
    """How a volume is written, beside the format that the suffix of its name stands for.

    Attributes
    ----------
    ngff : str
        The version of NGFF of an OME-Zarr.
    inner : str
        The place of the data set in an HDF5 file.
    format : str or None
        The format, as ``names.output_format`` calls it, where the suffix of the name does not tell it.
    image : LabelsOfImage or None
        Set where the result becomes labels inside an OME-Zarr image. The name of the result then stands only
        for the files beside it, which lie beside the image.
    """

    ngff: str = VERSION
    inner: str = INNER
    format: str | None = None
    image: LabelsOfImage | None = None

    def kind(self, out: Path) -> str:
        """Return the format of a result: ``tiff``, ``zarr``, ``hdf5`` or ``precomputed``.

        Raises
        ------
        UsageError
            Where the suffix of the name stands for none.
        """
        return self.format or output_format(out)

    def check(self, out: Path) -> None:
        """Refuse what cannot be written, before any work is done.

        Parameters
        ----------
        out : Path
            The name of the result.

        Raises
        ------
        UsageError, InputError
            Where the suffix names no format, a version or place in a file belongs to another format, a
            library is missing, or the file holds what is not a result.
        """
        kind = self.kind(out)
        if self.ngff not in FORMATS_OF_ZARR:
            raise UsageError(f"--ngff {self.ngff}: versions {' and '.join(FORMATS_OF_ZARR)} can be written")
        if kind != "zarr" and self.ngff != VERSION:
            raise UsageError(f"--ngff belongs to OME-Zarr, and {out} is none: name it .ome.zarr")
        if kind in _LIBRARIES:
            needed(_LIBRARIES[kind], out)
        if kind == "hdf5":
            check_own_file(out, self.inner)

    def fits(self, labels: Volume) -> None:
        """Refuse to write labels into an image whose grid is not that of the volume they are made from.

        Raises
        ------
        InputError
            As ``LabelsOfImage.check``.
        """
        if self.image is not None:
            self.image.check(labels)

    def main(self, out: Path) -> Path:
        """Return where the result itself appears: at its name, or among the labels of the image."""
        return out if self.image is None else self.image.path

    def place(self, out: Path) -> tuple[Path, bool, Callable[[], None]]:
        """Return where the result appears, whether it is a folder, and what to call when it is there."""
        folder = self.image is not None or self.kind(out) in ("zarr", "precomputed")
        return self.main(out), folder, self.settle

    def grows_in_place(self, out: Path) -> bool:
        """Tell whether the store of a result becomes a part of it, as it lies."""
        return self.kind(out) == "zarr" and self.ngff == VERSION

    def plan(self, out: Path, like: Volume, *, labelled: bool = True) -> Plan | None:
        """Return the levels of a result whose store becomes a part of it as it lies; None for other results.

        Parameters
        ----------
        out : Path
            The name of the result.
        like : Volume
            Whose shape and voxel size it gets.
        labelled : bool
            Whether its voxels are labels.
        """
        if not self.grows_in_place(out):
            return None
        factors = factors_of(self.image, like.shape, like.voxel_size)
        return Plan(tuple(factors), majority if labelled else mean)

    def state(self) -> dict[str, object]:
        """Return what of it belongs to the state of a result; nothing where the name says it all."""
        said = {"ngff": self.ngff, "inner": self.inner} if self.image is None else {"into": self.image.title}
        usual = {"ngff": VERSION, "inner": INNER}
        return {key: value for key, value in said.items() if value != usual.get(key)}

    def settle(self) -> None:
        """Make a result that has appeared known where it lies; may be repeated."""
        if self.image is not None:
            self.image.enlist()

    def address(self, out: Path) -> str:
        """Return what opens the result."""
        kind = self.kind(out)
        return f"{out}:/{self.inner}" if kind == "hdf5" and self.inner != INNER else str(self.main(out))


def parse_output(text: str, ngff: str = VERSION) -> tuple[Path, LabelForm]:
    """Read the name of an output.

    Parameters
    ----------
    text : str
        A path, ``file.h5:/place`` or ``precomputed://folder``.
    ngff : str
        The version of NGFF, for OME-Zarr.

    Returns
    -------
    Path, LabelForm

    Raises
    ------
    UsageError
        Where it is an address on the network, or the place in a file cannot be one.
    """
    bare = re.sub(r"^precomputed://(?:file://)?", "", text)
    if is_url(bare):
        raise UsageError(f"{text} is not a path on this machine: results are written to files here")
    if bare != text:
        return Path(bare), LabelForm(ngff, format="precomputed")
    found = _INSIDE.fullmatch(text)
    if found is None:
        return Path(text), LabelForm(ngff)
    inner = found["inner"].strip("/")
    if not inner or ".." in PurePosixPath(inner).parts:
        raise UsageError(f"'{quoted(text)}' names no place in a file: write out.h5:/labels")
    return Path(found["file"]), LabelForm(ngff, inner)
