"""Export the student of a training run, without teachers and agent."""

from __future__ import annotations

import argparse
import os
from contextlib import redirect_stdout
from io import StringIO

from mmkd_rl.export import FORMATS, export_student
from mmkd_rl.recipes.backbone import own_backbone
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import clear_errors

#: Modules that register a package's backbones.
_IMPORTS = {'mmpretrain': 'mmpretrain.models', 'mmdet': 'mmdet.models',
            'mmseg': 'mmseg.models'}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'checkpoint', help='checkpoint of a training run, or its work dir '
        '(the last checkpoint)')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--to',
        choices=FORMATS,
        default='mmpretrain',
        help='what the file is for: mmpretrain: the whole model, also of a '
        "segmentor or detector, for its library's plain config; torchvision: "
        "the whole classifier with torchvision's names; mmdet, mmseg: the "
        'backbone alone, for another model (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Export the student and print how to load it."""
    args = parse_args()
    with clear_errors():
        if os.path.exists(args.out) and os.path.samefile(args.checkpoint,
                                                         args.out):
            raise ValueError(f'{args.out!r} is the checkpoint itself, which '
                             'holds more than the student; give another OUT')
        checkpoint_io.check_out(args.out)
        path = checkpoint_io.last_checkpoint(args.checkpoint, 'checkpoint')
        student = export_student(
            checkpoint_io.load(path, 'checkpoint'), args.to)
        checkpoint_io.save(student, args.out)
    weights = student.get('state_dict', student)
    size = os.path.getsize(args.out) / 2**20
    print(f'{args.out}: {len(weights)} tensors, {size:.2f} MiB, for {args.to}')
    if args.to in ('mmdet', 'mmseg'):
        print(how_to_load(args.out, args.to))


def how_to_load(path: str, toolbox: str) -> str:
    """The backbone's config for a user of MMDetection or MMSegmentation.

    A toolbox may have a class of the same name whose weights have other names;
    MMEngine would load nothing into it, without an error.
    """
    init = (f"init_cfg=dict(type='Pretrained', checkpoint={path!r}, "
            "prefix='backbone.')")
    with redirect_stdout(StringIO()):  # MMEngine says that it loads the file
        backbone = own_backbone(path, toolbox)
    if backbone is None:
        return (f'use it with backbone=dict(..., {init})\nThe checkpoint does '
                f'not say which network it is of: if {toolbox} has a class of '
                'the same name, compare the names of their weights first')
    options = ', '.join(f'{name}={value!r}' for name, value in
                        backbone.items() if name != 'init_cfg')
    line = f'use it with backbone=dict({options}, {init})'
    package, dot, _ = backbone['type'].partition('.')
    if not dot:
        return line
    return (f'{line}\nand custom_imports=dict(imports='
            f'[{_IMPORTS.get(package, package)!r}]), because {toolbox} has no '
            'class of its own that reads these names')


if __name__ == '__main__':
    main()
