"""What ships with the package, and what can be fetched.

    weights        bundled weights by name
    datasets       public data: where it is, its SHA-256, its licence
    openorganelle  where the volumes of OpenOrganelle lie
    cache          where fetched files are kept
    download       a file from its host into the cache: resumable, checked
    archive        chosen members of an archive -> files, safely

Nothing is downloaded at import, and nothing without being asked for.
"""

from __future__ import annotations

from vemseg.catalog.archive import Member, members, unpack
from vemseg.catalog.cache import cache_directory
from vemseg.catalog.datasets import BETASEG, DATASETS, Dataset
from vemseg.catalog.download import download, file_sha256
from vemseg.catalog.weights import DEFAULT_WEIGHTS, HOW_RELEASED, RELEASED, bundled_weights, find_weights

__all__ = [
    "BETASEG",
    "DATASETS",
    "DEFAULT_WEIGHTS",
    "HOW_RELEASED",
    "RELEASED",
    "Dataset",
    "Member",
    "bundled_weights",
    "cache_directory",
    "download",
    "file_sha256",
    "find_weights",
    "members",
    "unpack",
]
