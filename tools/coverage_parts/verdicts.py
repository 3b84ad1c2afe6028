"""What was found for each config: the file of results, and its summary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from paper_tables.runs import write_json

WORKS, NOT_APPLICABLE, FAILS = 'works', 'not_applicable', 'fails'
STATUSES = (WORKS, NOT_APPLICABLE, FAILS)
#: Longest reason in the summary, in characters; the file has all of it.
_WIDTH = 150


@dataclass(frozen=True)
class Verdict:
    """What was found for a config.

    Attributes:
        config: Name of the config, ``'mmseg::pspnet/x.py'``.
        status: One of :data:`STATUSES`.
        reason: Why, in a line; for a config that works, how it was tried.
        seconds: Wall time of the trial.
    """
    config: str
    status: str
    reason: str
    seconds: float = 0.


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """Read a file of results, by the configs' names; empty without a file.

    Raises:
        ValueError: The file has other content.
    """
    if not path.exists():
        return {}
    try:
        found = [Verdict(**entry) for entry in json.loads(path.read_text())]
        if any(v.status not in STATUSES for v in found):
            raise ValueError('unknown status')
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'--json {str(path)!r} is not a result of this tool ({error}); '
            'give another name, or delete the file') from error
    return {v.config: v for v in found}


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write a file of results, completely or not at all."""
    write_json(path, [asdict(v) for v in verdicts])


def summary(verdicts: Sequence[Verdict], reasons: int = 8) -> str:
    """A table of how many configs work, and the most frequent reasons.

    Args:
        verdicts: The results.
        reasons: Number of reasons for each status but ``works``.
    """
    counts = {s: [v for v in verdicts if v.status == s] for s in STATUSES}
    applicable = len(counts[WORKS]) + len(counts[FAILS])
    lines = []
    for status, found in counts.items():
        line = f'{status.replace("_", " "):<15}{len(found):>5}'
        if status != NOT_APPLICABLE and applicable:
            line += (f'{len(found) / applicable:>8.1%} of the applicable '
                     'ones')
        lines.append(line)
    for status in (NOT_APPLICABLE, FAILS):
        lines += _frequent(status, counts[status], reasons)
    return '\n'.join(lines)


def _frequent(status: str, verdicts: Sequence[Verdict],
              count: int) -> list[str]:
    """Lines with the most frequent reasons of a status; reasons that differ
    by numbers only are the same."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        # Not a line's number: two places of a file are two reasons.
        key = re.sub(r'(?<![\w:.])\d+(\.\d+)?', 'N', verdict.reason)
        groups.setdefault(key, []).append(verdict)
    ranked = sorted(groups.values(), key=len, reverse=True)
    lines = [f'\n{status.replace("_", " ")}:'] if ranked else []
    for found in ranked[:count]:
        reason = found[0].reason
        if len(reason) > _WIDTH:
            reason = f'{reason[:_WIDTH]}...'
        lines.append(f'{len(found):>5}  {reason}\n       '
                     f'such as {found[0].config}')
    if len(ranked) > count:
        rest = sum(map(len, ranked[count:]))
        lines.append(f'{rest:>5}  for {len(ranked) - count} other reasons')
    return lines
