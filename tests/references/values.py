"""Committed numbers: one JSON file a case, one line a quantity over time."""

from __future__ import annotations

import json
import math
from pathlib import Path

FOLDER = Path(__file__).parent / 'values'


def read(name: str) -> dict:
    """Read the committed result of :func:`training.run`."""
    content = json.loads((FOLDER / f'{name}.json').read_text())
    rows: list[dict[str, float]] = [{} for _ in range(content['iterations'])]
    for key, course in content['rows'].items():
        for row, value in zip(rows, course):
            if value is not None:
                row[key] = value
    return dict(rows=rows, final=content['final'])


def write(name: str, values: dict) -> None:
    """Write the result of :func:`training.run`."""
    FOLDER.mkdir(exist_ok=True)
    keys = sorted({key for row in values['rows'] for key in row})
    courses = {
        key: [row.get(key) for row in values['rows']]
        for key in keys
    }

    def lines(items: dict) -> str:
        return ',\n'.join(f'{json.dumps(k)}: {json.dumps(v)}'
                          for k, v in items.items())

    (FOLDER / f'{name}.json').write_text(
        f'{{"iterations": {len(values["rows"])}, "rows": {{\n'
        f'{lines(courses)}}},\n"final": {{\n{lines(values["final"])}}}}}\n')


def difference(old: dict, new: dict, tolerance: float) -> list[str]:
    """Describe the differences of two results, one line each.

    Args:
        old, new: Results of :func:`training.run`.
        tolerance: Allowed difference, relative to values above 1 and absolute
            below; 0 to compare bit for bit.
    """
    if len(old['rows']) != len(new['rows']):
        return [f'{len(old["rows"])} iterations, now {len(new["rows"])}']
    problems = []
    pairs = [(f'iteration {i + 1}', *rows)
             for i, rows in enumerate(zip(old['rows'], new['rows']))]
    for where, a, b in (*pairs, ('the end', old['final'], new['final'])):
        for key in sorted(a.keys() ^ b.keys()):
            problems.append(f'{where}: {key} is only '
                            f'{"in the old" if key in a else "in the new"}')
        for key in sorted(a.keys() & b.keys()):
            bound = tolerance * max(1., abs(a[key]))
            # Not `> bound`, which NaN passes.
            if not (a[key] == b[key] or abs(a[key] - b[key]) <= bound) or \
                    math.isnan(a[key]):
                problems.append(f'{where}: {key} was {a[key]!r}, is '
                                f'{b[key]!r} ({b[key] - a[key]:+.2e})')
    return problems
