"""Convert CIFAR-100 to PNG files: OUT/train/CLASS/*.png, OUT/test/..."""

import argparse
import os
import shutil
from collections import Counter

from torchvision.datasets import CIFAR100

from mmkd_rl.utils.cli import clear_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', help='folder that contains the original cifar-100-python')
    parser.add_argument('out', help='folder to write; it must not exist')
    parser.add_argument(
        '--download',
        action='store_true',
        help='download the original into SOURCE if it is not there')
    return parser.parse_args()


def convert(source: str, out: str, download: bool = False) -> int:
    """Write all images; the folder gets its name when it is complete.

    Args:
        source: Folder that contains ``cifar-100-python``. torchvision checks
            the checksums of its files before it reads them.
        out: Folder to write.
        download: Download the original if it is not in ``source``.

    Returns:
        Number of images.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: ``source`` has no intact original.
    """
    if os.path.exists(out):
        raise FileExistsError(f'out={out!r} exists; name another folder or '
                              'remove it')
    partial = f'{out.rstrip("/")}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    total = 0
    for split in ('train', 'test'):
        try:
            data = CIFAR100(source, train=split == 'train', download=download)
        except RuntimeError as error:
            raise FileNotFoundError(
                f'source={source!r} has no intact cifar-100-python; put the '
                'original there or give --download') from error
        for name in data.classes:
            os.makedirs(os.path.join(partial, split, name))
        seen: Counter = Counter()
        for image, label in data:
            name = data.classes[label]
            image.save(
                os.path.join(partial, split, name, f'{seen[name]:04d}.png'))
            seen[name] += 1
        total += len(data)
    os.rename(partial, out)
    return total


def main() -> None:
    args = parse_args()
    with clear_errors():
        total = convert(args.source, args.out, args.download)
    print(f'{total} images written to {args.out}')


if __name__ == '__main__':
    main()
