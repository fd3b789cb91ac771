"""Volumes at addresses on the network."""

from __future__ import annotations

from vemseg.errors import InputError
from vemseg.volume.base import Volume
from vemseg.volume.stored import Wish


def open_remote(address: str, wish: Wish) -> Volume:
    """Refuse an address on the network.

    Raises
    ------
    InputError
        Always, with what to do.
    """
    raise InputError(f"{address} lies on the network: copy it to this machine first, and name the copy")
