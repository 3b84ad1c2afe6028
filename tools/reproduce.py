"""Repeat a table of the paper: train what is missing, write the table.

    python tools/reproduce.py table1 --scale short
    python tools/reproduce.py table1 --students resnet56 --methods mtkd-rl \\
        --seeds 0

Run it again to go on where it was stopped: what is done is skipped, what was
cut off is resumed. docs/reproduce.md says more.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from needs import need
from paper_tables.cells import Cell, Table
from paper_tables.tables import TABLES, find_table

FAILED, INTERRUPTED = 1, 130


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='tables:\n' + '\n'.join(
            f'  {name:13} {table.source}: {table.title}'
            for name, table in TABLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'table', metavar='TABLE',
        help='see the list below')
    parser.add_argument(
        '--students', nargs='+', metavar='NAME',
        help='as in the names of the configs; default: all')
    parser.add_argument(
        '--methods', nargs='+', metavar='NAME', help='likewise')
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N',
        help='default: 0 1 2')
    parser.add_argument(
        '--scale',
        help='paper: the configs as they are (default); short: small networks '
        'on a fifth of CIFAR-100, hours on 2 cores (default of kf-halves and '
        'kf-digits, which have no other); tiny: minutes, to see that it runs')
    parser.add_argument(
        '--data-root', metavar='DIR',
        help="holds train/ and test/ (or val/); default: the configs' own")
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/reproduce'),
        help='default: work_dirs/reproduce')
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N',
        help='runs side by side, each with cores / N threads (default: 1)')
    parser.add_argument(
        '--gpus', type=int, default=0, metavar='N',
        help='train each run with N processes by torchrun; batches in the '
        'configs are of one process')
    parser.add_argument(
        '--spoil', metavar='TEACHER',
        help='train this teacher of the pool on permuted labels')
    parser.add_argument(
        '--teacher', action='append', default=[], metavar='NAME=FILE',
        help="a teacher's weights, instead of training it; may be repeated")
    parser.add_argument(
        '--list', action='store_true',
        help="print the paper's number, ours and the command of each cell")
    parser.add_argument(
        '--dry-run', action='store_true', help='say what would be run')
    return parser.parse_args(argv)


def list_cells(table: Table, cells: list[Cell]) -> None:
    """Print each cell as a command of its own, at the paper's scale, with the
    paper's number and ours."""
    from paper_tables.commands import command
    from paper_tables.measured import measured
    from paper_tables.scales import find_scale
    from paper_tables.text import mean_std, plus_minus
    for cell in cells:
        numbers = [plus_minus(cell.mean, cell.std, 'not in the paper')]
        for scale in table.scales:
            if runs := measured(table, cell, scale):
                mean = plus_minus(*mean_std([*runs.accuracy.values()]))
                one = find_scale(table, scale).student_name
                of = f' ({one} in its place)' if one else ''
                numbers.append(f'ours, --scale {scale}{of}: {mean}')
        print(f'# {table.students[cell.student]}, {cell.title}: '
              f'{"; ".join(numbers)}\n{command(cell)}\n')


def reproduce(args: argparse.Namespace, command: str) -> int:
    """All of it; the exit code.

    Raises:
        ValueError, FileNotFoundError, KeyError: Something in the request.
    """
    # Here, so that --help comes at once.
    from paper_tables.plan import Planner, check_data
    from paper_tables.scales import find_scale
    from task_runner import Runner, clock, total_expected

    table = find_table(args.table)
    if args.list:
        list_cells(table, table.select(args.students, args.methods))
        return 0
    scale = find_scale(table, args.scale)
    for key, low in (('jobs', 1), ('gpus', 0)):
        if getattr(args, key) < low:
            raise ValueError(
                f'--{key} must be >= {low}, got {getattr(args, key)}')
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise ValueError('--seeds must be different numbers >= 0, got '
                         f'{args.seeds}')
    weights = {}
    for text in args.teacher:
        name, equals, path = text.partition('=')
        if not equals:
            raise ValueError(f'--teacher must be NAME=FILE, got {text!r}')
        weights[name] = path

    def planner(spoil: str | None) -> Planner:
        return Planner(scale, args.work_dir, args.data_root, spoil, weights,
                       str(Path(__file__).with_name('train.py')), args.gpus)

    plan = planner(args.spoil).plan(table, args.students, args.methods,
                                    args.seeds)
    jobs = plan.needed()
    todo = [run for run in jobs if not run.done()]
    known = [run for run in todo if run.expected is not None]
    total = total_expected(known, args.jobs) if known or not todo else None
    print(f'{table.source}, scale {scale.name}: {len(jobs)} runs, '
          f'{len(jobs) - len(todo)} of them done before; expected '
          f'{clock(total)} (h:mm:ss) for the rest, {args.jobs} at a time'
          f'{not_estimated(todo)}', flush=True)
    if args.dry_run:
        for run in jobs:
            print(f'  {run.name:48} {clock(run.expected):>8}  {run.state()}')
            print(f'    {run.folder}')
        return 0
    # Now, and not when the table is written.
    need('doit')
    need('tabulate')
    check_data(plan)
    cores = len(os.sched_getaffinity(0))
    runner = Runner(jobs, args.jobs, max(1, cores // args.jobs),
                    lambda line: print(line, flush=True))
    try:
        runner.run()
    finally:
        # What is there is worth a table, also after Ctrl-C.
        paths = write_report(args, command, planner, plan, runner.failed)
        print(f'{paths[0]}; also {", ".join(p.name for p in paths[1:])}',
              flush=True)
    if runner.failed:
        print(f'{len(runner.failed)} runs failed: '
              f'{", ".join(runner.failed)}', file=sys.stderr)
        return FAILED
    return 0


def not_estimated(runs) -> str:
    """Sentence about what the expected time leaves out."""
    unknown = [run for run in runs if run.expected is None]
    if not unknown:
        return ''
    teachers = sum(run.is_teacher for run in unknown)
    counts = ((teachers, 'teachers'), (len(unknown) - teachers, 'students'))
    parts = ', '.join(f'{n} {what}' for n, what in counts if n)
    source = '' if len(unknown) == len(runs) else \
        ' (by Table 6(c), one RTX 4090)'
    return f'{source}; not estimated: {parts}'


def write_report(args, command, planner, plan, failed) -> list[Path]:
    """Write the table of all that is there, also of earlier requests."""
    from paper_tables.report import Report
    from paper_tables.scales import find_scale
    from paper_tables.summary import gather

    table = find_table(args.table)
    scale = find_scale(table, args.scale)
    rows, teachers, notes = gather(planner, table, scale, plan, args.students,
                                   args.seeds, args.spoil, failed)
    args.work_dir.joinpath(scale.name).mkdir(parents=True, exist_ok=True)
    return Report(table, scale, rows, teachers, command, args.seeds,
                  args.spoil, notes).write(args.work_dir / scale.name)


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, 1 for a failed run, 2 for wrong input, 130."""
    args = parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    command = f'python tools/reproduce.py {shlex.join(words)}'
    from mmkd_rl.utils.cli import clear_errors
    from task_runner import Interrupted
    code = 0
    with clear_errors():
        try:
            code = reproduce(args, command)
        except Interrupted:
            print(f'stopped; to go on:\n  {command}', file=sys.stderr)
            code = INTERRUPTED
    return code


if __name__ == '__main__':
    sys.exit(main())
