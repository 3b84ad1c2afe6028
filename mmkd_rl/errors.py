"""Tell errors in the user's input from faults in our own code.

A fault keeps its type and its traceback. Code that turns an exception of a
user's network into a message about the config calls :func:`is_fault` first.
"""

from __future__ import annotations

import linecache
import os
import os.path as osp
import traceback

_PACKAGE = osp.dirname(osp.abspath(__file__))
#: Folders of the package and of its tools, which are next to each other both
#: in a checkout and when installed.
_OURS = (_PACKAGE + os.sep,
         osp.join(osp.dirname(_PACKAGE), 'tools') + os.sep)


def raised_at(
        error: BaseException) -> tuple[traceback.FrameSummary, str] | None:
    """The innermost frame of an exception and the statement there; ``None``
    if the exception was never raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    last = frames[-1]
    return last, linecache.getline(last.filename, last.lineno or 0).strip()


def is_ours(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is in this package or in its tools."""
    return osp.abspath(frame.filename).startswith(_OURS)


def is_fault(error: BaseException) -> bool:
    """Whether our own code failed, other than by a ``raise`` statement."""
    place = raised_at(error)
    return place is not None and is_ours(place[0]) and \
        not place[1].startswith('raise')
