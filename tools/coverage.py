"""Try how many configs of a toolbox can be distilled.

Every training config that the installed toolbox ships is distilled from two
small untrained teachers: one training step and one prediction on random small
images, on a CPU. Weights are neither downloaded nor loaded. Architecture,
losses, batch augmentations and optimiser are the config's own.

A config works if its losses are finite and have the distillation's, a
parameter of the student gets a gradient, and each image a prediction. It is
not applicable if its model gives no scores of classes, or needs a package
that is not installed. If it fails without teachers, too, the reason says so.

A config that differs from one that works by schedule, data or the size of
images alone has the same result, and is not tried. The file has a result for
each config, and is written after each one. An interrupted run goes on with
the same command: configs in the file are skipped.
"""

from __future__ import annotations

# A tool beside this one finds it in place of PyPI's package of that name, for
# which numba looks, too.
if __name__ == 'coverage':
    raise ImportError('tools/coverage.py is a program, not the package')

import argparse
import sys
import time
from pathlib import Path

from coverage_parts import child
from coverage_parts.repeats import Repeats
from coverage_parts.selection import (
    diverse_first,
    sampled,
    training_configs,
)
from coverage_parts.trial import examine
from coverage_parts.verdicts import (
    FAILS,
    STATUSES,
    Verdict,
    read_verdicts,
    summary,
    write_verdicts,
)
from mmkd_rl.recipes.reading import read_strategy, split_names
from mmkd_rl.utils.cli import clear_errors
from mmkd_rl.utils.patches import patch_mmengine


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--toolbox', required=True, choices=['mmdet', 'mmseg', 'mmpretrain'],
        help='whose configs to try')
    parser.add_argument(
        '--filter', metavar='PATTERN',
        help='only configs whose path has this part, or matches this pattern '
        "('pspnet/*r18*')")
    parser.add_argument(
        '--sample', type=int, metavar='N',
        help='only a random sample of N configs')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the sample (%(default)s)')
    parser.add_argument(
        '--strategy', default='mtkd_rl',
        help='how the teachers are used, as for train.py --distill '
        '(%(default)s)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='file of the results')
    parser.add_argument(
        '--again', action='append', choices=STATUSES, default=[],
        metavar='STATUS',
        help='try configs again that have this status in the file '
        f'({", ".join(STATUSES)}; repeat it for several)')
    parser.add_argument(
        '--list', action='store_true',
        help='print the names of the configs, and try none')
    parser.add_argument(
        '--timeout', type=float, default=300., metavar='SECONDS',
        help='time limit of a config (%(default)g)')
    parser.add_argument(
        '--memory', type=float, default=12., metavar='GIB',
        help='memory limit of a config (%(default)g)')
    parser.add_argument(
        '--debug', action='store_true',
        help='show what the configs print, and where in the code an error '
        'was raised')
    args = parser.parse_args()
    if args.sample is not None and args.sample < 1:
        parser.error(f'--sample must be >= 1, got {args.sample}')
    for name in ('timeout', 'memory'):
        if not getattr(args, name) > 0:
            parser.error(f'--{name} must be > 0, got {getattr(args, name):g}')
    if args.json is None and not args.list:
        parser.error('--json FILE is needed for the results, or --list to '
                     'see the names of the configs')
    return args


def main() -> int:
    """Try the configs, write the results and print the table."""
    args = parse_args()
    patch_mmengine()
    with clear_errors(args.debug):
        if not any('weighting' in read_strategy(name)
                   for name in split_names(args.strategy)):
            raise ValueError(f'--strategy {args.strategy!r} weighs no '
                             'teachers, so that there are no distillation '
                             f'losses to see; try mtkd_rl+{args.strategy}')
        names = diverse_first(sampled(
            training_configs(args.toolbox, args.filter), args.sample,
            args.seed))
        if args.list:
            print('\n'.join(names))
        else:
            _try_all(names, args)
    return 0


def _try_all(names: list[str], args: argparse.Namespace) -> None:
    verdicts = read_verdicts(args.json)
    left = [name for name in names if name not in verdicts
            or verdicts[name].status in args.again]
    repeats = Repeats(v for v in verdicts.values() if v.config not in left)
    for number, name in enumerate(left, 1):
        verdict = repeats.find(name) or _try(name, args)
        repeats.add(verdict)
        verdicts[name] = verdict
        write_verdicts(args.json, verdicts.values())
        print(f'{number}/{len(left)} {name}: {verdict.status} '
              f'({verdict.seconds:.0f} s) {verdict.reason}', flush=True)
    print(f'\n{args.toolbox}: {len(names)} configs, {len(left)} of them '
          'tried now\n' + summary([verdicts[name] for name in names]))


def _try(name: str, args: argparse.Namespace) -> Verdict:
    """Try a config; if its optimiser's state does not fit into memory, try
    it with plain SGD."""
    start = time.perf_counter()

    def in_child(lean: bool) -> tuple[str, str]:
        return child.run(
            examine, name, args.strategy, lean, timeout=args.timeout,
            memory=args.memory, silent=not args.debug)

    try:
        try:
            status, reason = in_child(lean=False)
        except child.OutOfMemory as lost:
            status, reason = in_child(lean=True)
            reason += f'; plain SGD is the optimiser, with its own {lost}'
    except child.ChildLost as lost:
        status, reason = FAILS, str(lost)
    return Verdict(name, status, reason,
                   round(time.perf_counter() - start, 1))


if __name__ == '__main__':
    sys.exit(main())
