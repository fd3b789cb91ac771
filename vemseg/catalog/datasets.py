"""Public datasets: where they are, and by which hash an unchanged copy is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A dataset that is published as one archive.

    Attributes
    ----------
    name : str
    url : str
    sha256 : str
        The SHA-256 of the whole archive, in hexadecimal.
    about, licence, reference : str
        What it holds, on which terms it may be used, and what to cite; shown to users.
    """

    name: str
    url: str
    sha256: str
    about: str
    licence: str
    reference: str


BETASEG = Dataset(
    name="betaseg",
    url="https://cloud.mpi-cbg.de/index.php/s/UJopHTRuh6f4wR8/download",
    sha256="4872eec0211721dc224acee319c27c4f51c190adc36004e3d5bb60dfcd67eb7b",
    about="BetaSeg: seven mouse beta cells, FIB-SEM, 16 nm isotropic, with masks of their organelles",
    licence="see https://betaseg.github.io",
    reference="Müller et al., J. Cell Biol. 220 (2021), https://doi.org/10.1083/jcb.202010039",
)

DATASETS = {dataset.name: dataset for dataset in (BETASEG,)}
"""All datasets that can be fetched, by name."""
