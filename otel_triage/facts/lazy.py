"""Regular expressions that are compiled when they are first needed.

Tables of rare wordings would together take longer to compile than the first verdict of a process may.
"""

from __future__ import annotations

import re
from functools import cache


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The compiled form of a pattern."""
    return re.compile(pattern)
