"""Draw the weights that a run gave its teachers."""

from __future__ import annotations

import argparse
import os
import sys

from mmkd_rl.visualization import WeightRecord, plot_weights


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'record', help='teacher_weights.json of a run, or its work directory')
    parser.add_argument(
        '--out', help='picture to write (default: beside the record)')
    parser.add_argument(
        '--mark',
        action='append',
        default=[],
        metavar='TEACHER=NOTE',
        help='draw a teacher dashed, with a note in the legend')
    parser.add_argument(
        '--title', default='Trust in each teacher over training')
    return parser.parse_args()


def main() -> int:
    """Plot; 2 for the user's mistakes."""
    args = parse_args()
    path = args.record
    if os.path.isdir(path):
        path = os.path.join(path, 'teacher_weights.json')
    try:
        record = WeightRecord.load(path)
        mark = dict(entry.split('=', 1) for entry in args.mark)
        if unknown := set(mark) - set(record.teachers):
            raise ValueError(f'--mark names {sorted(unknown)}; the teachers '
                             f'are {record.teachers}')
    except FileNotFoundError:
        print(f'error: {path!r}: no such file; runs with '
              'WeightVisualizationHook write one', file=sys.stderr)
        return 2
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    out = args.out or os.path.splitext(path)[0] + '.png'
    plot_weights(record, mark, args.title).savefig(out, dpi=120)
    print(out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
