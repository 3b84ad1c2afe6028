"""Rewrite reference values, with the reason for the change.

    python -m tests.references.update --why "DIST's columns are masked" dist

Without names all cases are trained. Files of cases with unchanged numbers are
not rewritten. The reason is added to tests/references/CHANGES.md.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from .cases import CASES
from .training import run
from .values import FOLDER, difference, read, write

NOTES = Path(__file__).parent / 'CHANGES.md'


def main() -> None:
    """Train cases, compare and write their values."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('cases', nargs='*', help='default: all')
    parser.add_argument('--why', required=True, help='goes into CHANGES.md')
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f'no case {sorted(unknown)}; there are {list(CASES)}')
    changed = []
    for name in args.cases or CASES:
        values = run(name)
        is_new = not (FOLDER / f'{name}.json').exists()
        problems = [] if is_new else difference(read(name), values, 1e-10)
        if is_new or problems:
            write(name, values)
            changed.append(name)
            print(f'{name}: {"new" if is_new else problems[0]}')
    for path in FOLDER.glob('*.json'):
        if path.stem not in CASES:
            path.unlink()
            changed.append(path.stem)
            print(f'{path.stem}: removed')
    if changed:
        with open(NOTES, 'a') as file:
            file.write(f'- {date.today()}: {args.why} '
                       f'({", ".join(changed)})\n')


if __name__ == '__main__':
    main()
