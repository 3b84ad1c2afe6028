"""Train the reference cases with two commits, and compare bit for bit.

    python -m tests.references.compare OLD [NEW] [--dtype float64] [CASE ...]

Each commit is checked out into a temporary folder. The cases and the training
of this working tree run with the commit's package, in a process of its own, by
default in float32. NEW is the working tree by default. The exit code is 1 if
anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .cases import CASES
from .values import difference

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def train(tree: Path, out: Path, cases: list[str], dtype: str) -> dict:
    """Train the cases with the package in ``tree``, and return the values."""
    done = subprocess.run(
        [sys.executable, str(HERE / 'training.py'), '--dtype', dtype, '--out',
         str(out), '--cases', *cases],
        cwd=tree, env={**os.environ, 'PYTHONPATH': str(tree)},
        capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{tree}: {done.stderr[-3000:]}')
    return json.loads(out.read_text())


def main() -> int:
    """Compare two commits; the exit code is 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('old', help='commit')
    parser.add_argument('new', nargs='?', help='commit; default: this tree')
    parser.add_argument('--cases', nargs='*', default=list(CASES))
    parser.add_argument('--dtype', default='float32',
                        choices=['float32', 'float64'])
    args = parser.parse_args()
    values = []
    with tempfile.TemporaryDirectory() as folder:
        for index, commit in enumerate((args.old, args.new)):
            tree = ROOT
            if commit is not None:
                tree = Path(folder) / f'tree{index}'
                subprocess.run(['git', 'worktree', 'add', '--detach', '-q',
                                str(tree), commit], cwd=ROOT, check=True)
            try:
                values.append(train(tree, Path(folder) / f'{index}.json',
                                    args.cases, args.dtype))
            finally:
                if tree is not ROOT:
                    subprocess.run(['git', 'worktree', 'remove', '--force',
                                    str(tree)], cwd=ROOT, check=True)
    differs = 0
    for name in args.cases:
        problems = difference(values[0][name], values[1][name], 0)
        numbers = sum(map(len, values[0][name]['rows'])) + len(
            values[0][name]['final'])
        print(f'{name}: ' + (f'{numbers} numbers, all the same bits'
                             if not problems else
                             f'{len(problems)} of {numbers} numbers differ; '
                             f'first: {problems[0]}'))
        differs += bool(problems)
    print(f'{len(args.cases) - differs} of {len(args.cases)} cases are the '
          f'same in {args.dtype}')
    return int(differs > 0)


if __name__ == '__main__':
    sys.exit(main())
