"""Reproduce a table of a paper: train the missing runs, write the table.

    python tools/reproduce.py table1 --scale short
    python tools/reproduce.py table1 --students resnet56 --methods mtkd-rl \\
        --seeds 0

Run the same command again to continue: finished runs are skipped, interrupted
runs are resumed. See docs/reproduce.md.
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
    """Parse the command line."""
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
        help='students, as in the names of the configs; default: all')
    parser.add_argument(
        '--methods', nargs='+', metavar='NAME',
        help="methods, e.g. aver mtkd-rl; default: all of the paper's")
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N',
        help='default: 0 1 2')
    parser.add_argument(
        '--scale',
        help='paper: the configs as they are (default); medium: ResNet-20 on '
        'CIFAR-100 with stored teachers, half an hour a run; short: small '
        'networks on a fifth of CIFAR-100, hours on 2 cores (default of '
        'kf-halves and '
        'kf-digits, which have no paper scale); tiny: minutes, only to see '
        'that everything runs')
    parser.add_argument(
        '--data-root', metavar='DIR',
        help='folder of the images of classifiers, with train/ and test/ (or '
        'val/); default: data_root of the configs')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/reproduce'),
        help='default: work_dirs/reproduce')
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N',
        help='number of runs at the same time, each with cores / N threads '
        '(default: 1)')
    parser.add_argument(
        '--gpus', type=int, default=0, metavar='N',
        help='train each run with N processes, started by torchrun; the batch '
        'size of a config is that of one process')
    parser.add_argument(
        '--spoil', metavar='TEACHER',
        help='train this teacher of the pool on permuted labels')
    parser.add_argument(
        '--teacher', action='append', default=[], metavar='NAME=FILE',
        help='use the weights in FILE instead of training this teacher; may '
        'be repeated')
    parser.add_argument(
        '--list', action='store_true',
        help="print the paper's number, ours and the command of each cell")
    parser.add_argument(
        '--dry-run', action='store_true',
        help='list the runs with their state, and do not start them')
    return parser.parse_args(argv)


def list_cells(table: Table, cells: list[Cell]) -> None:
    """Print the command of each cell at the paper's scale, with the paper's
    number and ours."""
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
        lines = [f'# {table.students[cell.student]}, {cell.title}: '
                 f'{"; ".join(numbers)}']
        if cell.start is not None:
            lines += [command(cell.start), '# and from this backbone']
        print('\n'.join([*lines, command(cell), '']))


def reproduce(args: argparse.Namespace, command: str) -> int:
    """Train the missing runs of a table and write the table.

    Args:
        args: Parsed command line.
        command: The command line as text, for the report.

    Returns:
        The exit code.

    Raises:
        ValueError, FileNotFoundError, KeyError: An argument is wrong, or a
            file that it names is missing.
        Interrupted: Ctrl-C or SIGTERM.
    """
    # These imports take seconds, and --help needs none.
    from paper_tables.data import check_data, write_tiny_data
    from paper_tables.plan import Planner
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
    # Checked before the training, not only when the table is written.
    need('doit')
    need('tabulate')
    write_tiny_data(plan, scale)
    check_data(plan)
    cores = len(os.sched_getaffinity(0))
    runner = Runner(jobs, args.jobs, max(1, cores // args.jobs),
                    lambda line: print(line, flush=True))
    try:
        runner.run()
    finally:
        # The table is also written after Ctrl-C, with the finished runs.
        paths = write_report(args, command, planner, plan, runner.failed)
        print(f'{paths[0]}; also {", ".join(p.name for p in paths[1:])}',
              flush=True)
    if runner.failed:
        print(f'{len(runner.failed)} runs failed: '
              f'{", ".join(runner.failed)}', file=sys.stderr)
        return FAILED
    return 0


def not_estimated(runs) -> str:
    """Text for the user about runs whose time is not estimated."""
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
    """Write the table of all finished runs, including those of earlier
    commands.

    Returns:
        The files: Markdown, JSON, pictures.
    """
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
    """Run the command line.

    Returns:
        The exit code: 0, 1 if a run failed, 130 after Ctrl-C; wrong input
        exits with 2.
    """
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
