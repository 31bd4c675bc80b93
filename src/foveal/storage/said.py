"""Warnings that are given once in a process, whatever text they have the next time."""

from __future__ import annotations

import warnings
from collections.abc import Hashable

SAID: set[Hashable] = set()
"""What was warned of."""


def warn_once(about: Hashable, sentence: str, stacklevel: int = 3) -> None:
    """Warn, unless of the same thing already.

    Args:
        about: What it is about.
        sentence: What to say.
        stacklevel: Caller that is named, as of `warnings.warn`; 3 is the caller of the function that warns.
    """
    if about not in SAID:
        SAID.add(about)
        warnings.warn(sentence, RuntimeWarning, stacklevel=stacklevel)
