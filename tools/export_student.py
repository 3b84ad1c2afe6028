"""Export the student of a training run, without teachers and agent."""

from __future__ import annotations

import argparse
import os

from mmkd_rl.export import FORMATS, export_student
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import clear_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a training run')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--to',
        choices=FORMATS,
        default='mmpretrain',
        help='library that will load the file: the whole classifier is '
        'written for mmpretrain and torchvision, its backbone for mmdet and '
        'mmseg (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Export the student and print how to load it."""
    args = parse_args()
    with clear_errors():
        if os.path.exists(args.out) and os.path.samefile(args.checkpoint,
                                                         args.out):
            raise ValueError(f'{args.out!r} is the checkpoint itself, which '
                             'holds more than the student; give another OUT')
        if os.path.isdir(args.out):
            raise ValueError(f'{args.out!r} is a folder; give a file')
        student = export_student(
            checkpoint_io.load(args.checkpoint, 'checkpoint'), args.to)
        checkpoint_io.save(student, args.out)
    weights = student.get('state_dict', student)
    size = os.path.getsize(args.out) / 2**20
    print(f'{args.out}: {len(weights)} tensors, {size:.2f} MiB, for {args.to}')
    if args.to in ('mmdet', 'mmseg'):
        print("use it with backbone=dict(..., init_cfg=dict(type='Pretrained',"
              f" checkpoint='{args.out}', prefix='backbone.'))")


if __name__ == '__main__':
    main()
