"""Formats numbers and tables as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from needs import need

NOTHING = '–'


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); ``None`` if undefined."""
    if not values:
        return None, None
    return (statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else None)


def plus_minus(mean: float | None, std: float | None = None,
               nothing: str = NOTHING) -> str:
    """Format mean and standard deviation, e.g. ``75.35 ± 0.33``.

    Args:
        mean: Mean; ``None`` if there is none.
        std: Standard deviation; left out if ``None``.
        nothing: Text if there is no mean.
    """
    if mean is None:
        return nothing
    return f'{mean:.2f}' + ('' if std is None else f' ± {std:.2f}')


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]],
             numbers: bool = True) -> str:
    """A Markdown table.

    Args:
        head: Titles of the columns.
        rows: Rows with one text for each column.
        numbers: Align all columns but the first to the right.
    """
    right = 'right' if numbers else 'left'
    return need('tabulate').tabulate(
        rows, head, 'pipe', disable_numparse=True,
        colalign=('left', *[right] * (len(head) - 1)) if rows else None)
