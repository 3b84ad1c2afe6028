"""Write the plain student of a training run: no teachers, no agent."""

from __future__ import annotations

import argparse
import os

from mmkd_rl.export import FORMATS, export_student
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import clear_errors


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a training run')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--to',
        choices=FORMATS,
        default='mmpretrain',
        help='who is to read it: mmpretrain and torchvision get the whole '
        'classifier, mmdet and mmseg its backbone (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Export."""
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
