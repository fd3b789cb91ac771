"""Suggests the nearest known spelling for an unknown word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """Return " (did you mean ...?)" with the nearest spelling, or an empty text where none is near.

    Parameters
    ----------
    word : str
    known : iterable of str
        The words that may have been meant.
    cutoff : float
        How alike two words must be, 0 to 1.
    prefix : str
        Text that is written before the word found.
    """
    found = difflib.get_close_matches(word, [other for other in known if other != word], n=1, cutoff=cutoff)
    return f" (did you mean '{prefix}{found[0]}'?)" if found else ""
