"""Distillation on embedded data, from teachers to detectors and segmentors.

Every step is an ordinary command with a config of configs/demo/, which can
also be run by hand. Results are in work_dirs/demo/: one folder a step with its
log, summary.json (accuracies, AP and mIoU as fractions of 1), and pictures. A
step is not run again if its command, config and inputs are unchanged; changes
of the code are not detected, so use --fresh after them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

from needs import need

REPOSITORY = Path(__file__).resolve().parents[1]
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--seed', type=int, default=0,
                        help='seed of the training; the images do not depend '
                        'on it')
    parser.add_argument('--fresh', action='store_true',
                        help='run every step again')
    parser.add_argument('--tiny', action='store_true',
                        help='run every step for a few iterations, only to '
                        'see that it works; the numbers mean nothing')
    parser.add_argument('--work-dir', type=Path,
                        help='default: work_dirs/demo, or work_dirs/demo_tiny')
    parser.add_argument('--jobs', type=int, metavar='N',
                        help='number of steps at the same time (default: 2, '
                        'or 1 on a single core)')
    args = parser.parse_args(argv)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f'--jobs must be >= 1, got {args.jobs}')
    if args.seed < 0:
        parser.error(f'--seed must be >= 0, got {args.seed}')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs/demo_tiny' if args.tiny else
                             'work_dirs/demo')
    return args


def run(args: argparse.Namespace) -> int:
    """Run all steps that are not done, and report the results.

    Returns:
        The exit code.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
    """
    need('doit')
    need('tabulate')
    # These imports take seconds, and --help needs none.
    from demo_parts.steps import RECORD, plan
    from task_runner import Runner, clock

    cores = len(os.sched_getaffinity(0))
    jobs = args.jobs or min(2, cores)
    start = time.monotonic()
    steps = plan(args.work_dir, args.seed, args.tiny)
    if args.fresh:
        for step in steps:
            (step.folder / RECORD).unlink(missing_ok=True)
    print(f'{len(steps)} steps, {jobs} at a time; logs and results: '
          f'{args.work_dir}/', flush=True)
    threads = os.environ.get('OMP_NUM_THREADS', '')
    path = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
    runner = Runner(
        steps, jobs,
        int(threads) if threads.isdigit() else max(1, cores // jobs),
        lambda line: print(line, flush=True), keep_going=False,
        environment=dict(PYTHONWARNINGS='ignore',
                         PYTHONPATH=os.pathsep.join(filter(None, path))))
    runner.run()
    if runner.failed:
        print(f'demo: step {next(iter(runner.failed))} failed',
              file=sys.stderr)
        return FAILED
    if runner.reused:
        print(f'{len(runner.reused)} of {len(steps)} steps were done '
              'before with the same config and inputs, and are reused '
              '(--fresh runs them again).')
    report(args, steps, len(runner.reused) < len(steps))
    print(f'This took {clock(time.monotonic() - start)} (min:s).')
    return 0


def report(args: argparse.Namespace, steps: list, changed: bool) -> None:
    """Write summary.json and the pictures, and print the results.

    Args:
        args: Parsed command line.
        steps: All steps, which are done.
        changed: Whether a step was run, so that pictures are out of date.
    """
    from demo_parts.summary import explain, summarize, table
    from paper_tables.runs import write_json
    from task_runner import EPOCHS, LOG

    root = args.work_dir
    records = {step.name: step.record() for step in steps}
    student = root / 'student_mtkd_rl'
    epochs, _, length = EPOCHS.findall(
        (student / LOG).read_text(errors='replace'))[-1]
    summary = summarize(records, args.seed, int(epochs) * int(length))
    write_json(root / 'summary.json', summary)
    weights_file = student / 'teacher_weights.json'
    weights = json.loads(weights_file.read_text()) \
        if weights_file.is_file() else None

    pictures = []
    for name in ('teacher_weights.png', 'sample_weights.png'):
        if (student / name).is_file():
            pictures.append(shutil.copyfile(student / name, root / name))
    detections = root / 'detections.png'
    if changed or not detections.is_file():
        # Messages of MMDetection's imports and loaders go to a file.
        with (root / 'pictures.txt').open('w') as log, \
                contextlib.redirect_stdout(log), \
                contextlib.redirect_stderr(log):
            from demo_parts.pictures import draw_detections
            draw_detections(root, detections)
    print(f'\n{table(summary, records)}')
    print(f'\n{explain(summary, weights, 100 if args.tiny else 4 * 599)}')
    print(f'\n{root / "summary.json"}; pictures: '
          f'{", ".join(map(str, [*pictures, detections]))}')


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 if a step failed, 2 for wrong input, 130 after
        Ctrl-C.
    """
    args = parse_args(argv)
    args.work_dir = Path(os.path.relpath(args.work_dir, REPOSITORY))
    os.chdir(REPOSITORY)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (args.work_dir / '.lock').open('w') as lock:
            # A second demo in this folder, with another seed or length, would
            # overwrite the results of the first.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return run(args)
    except BlockingIOError:
        print(f'demo: another demo is running in {args.work_dir}',
              file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print('\ndemo: interrupted; run it again to go on with what is '
              'missing', file=sys.stderr)
        return INTERRUPTED


if __name__ == '__main__':
    sys.exit(main())
