"""The nearest spelling of a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """Return a question about the nearest spelling, with a space before it, or nothing.

    Parameters
    ----------
    word : str
    known : iterable of str
        The words it may have been meant to be.
    cutoff : float
        How alike two words must be, 0 to 1.
    prefix : str
        Written before the word that is found.
    """
    found = difflib.get_close_matches(word, [other for other in known if other != word], n=1, cutoff=cutoff)
    return f" (did you mean '{prefix}{found[0]}'?)" if found else ""
