"""Check the installed packages, and print what to do if they do not work.

    python tools/check_env.py [--quiet]

Checks, in this order: versions against requirements/; torch with torchvision;
the compiled operators of mmcv; the OpenMMLab packages; mmkd_rl and its
configs. Prints one message for each problem; the exit code is 1 if there is a
problem. A version that differs from the tested one is only noted, because it
may work.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Distributions that install the same files. If both are installed, or the
# wrong one of a pair, errors occur in unrelated places.
TWINS = {
    'onedl-mmengine': ('mmengine', 'mmengine-lite'),
    'onedl-mmcv': ('mmcv', 'mmcv-full', 'mmcv-lite'),
    'onedl-mmpretrain': ('mmpretrain', ),
    'onedl-mmdetection': ('mmdet', ),
    'onedl-mmsegmentation': ('mmsegmentation', ),
}
AGAIN = 'make setup'
FRESH = 'rm -rf .venv && make setup'


def installed_version(name: str) -> str | None:
    """Version of a distribution; ``None`` if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_pins(paths: Iterable[Path]) -> dict[str, str]:
    """``{distribution: version}`` of the ``==`` lines of requirements files
    whose markers apply to this Python and platform."""
    from packaging.requirements import Requirement
    pins = {}
    for path in paths:
        for line in path.read_text(encoding='utf-8').splitlines():
            line = line.split('#')[0].strip()
            if not line:
                continue
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate():
                continue
            pins[requirement.name] = str(requirement.specifier)[2:]
    return pins


def check_versions(
        pins: dict[str, str],
        version_of: Callable[[str], str | None] = installed_version
) -> tuple[list[str], list[str]]:
    """Compare installed versions with the pinned ones.

    Args:
        pins: Version by distribution.
        version_of: Installed version of a distribution, or ``None``.

    Returns:
        Problems (missing distributions, or both of a pair in ``TWINS``), and
        notes (other versions).
    """
    problems, notes = [], []
    for name, pinned in pins.items():
        found = version_of(name)
        twins = [t for t in TWINS.get(name, ()) if version_of(t)]
        if found and twins:
            problems.append(
                f'{name} and {twins[0]} are both installed and hold the same '
                f'files, so one has overwritten the other. Do: {FRESH}')
        elif found is None and twins:
            notes.append(f'{twins[0]} {version_of(twins[0])} stands in for '
                         f'{name} {pinned}, which was tested')
        elif found is None:
            problems.append(f'{name} is not installed. Do: {AGAIN}')
        # The part after "+" names the build, as in 2.13.0+cpu.
        elif found.split('+')[0] != pinned:
            notes.append(f'{name} {found} is installed, {pinned} was tested')
    return problems, notes


def explain_torch(error: BaseException) -> str:
    """Message for an error in the import of torch or torchvision."""
    torch, vision = (installed_version(n) or 'none'
                     for n in ('torch', 'torchvision'))
    text = str(error).strip().splitlines()
    reason = text[0] if text else type(error).__name__
    if 'torchvision::' in reason or 'torchvision' in reason:
        return (f'torch {torch} and torchvision {vision} do not belong '
                f'together ({reason}): they are of different versions, or one '
                'was built for CPU and the other for CUDA. They must be '
                f'installed in one step. Do: {FRESH}')
    if isinstance(error, ImportError) and '.so' in reason:
        return (f'torch {torch} does not find a library of the system or of '
                f'CUDA ({reason}). Do: {FRESH}')
    return f'torch {torch} cannot be imported ({reason}). Do: {FRESH}'


def explain_operators(error: BaseException) -> str:
    """Message for an error in the import or use of mmcv's operators."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    redo = 'rm -rf ~/.cache/mmkd_rl .venv && make setup'
    if isinstance(error, ModuleNotFoundError) and 'mmcv._ext' in reason:
        return ('mmcv is installed without its compiled operators: it was '
                'built where no torch was in sight. Detection will not work. '
                f'Do: {redo}')
    if 'undefined symbol' in reason or '.so' in reason:
        return ('the operators of mmcv were compiled against another torch '
                f'than the installed one ({reason}). Do: {redo}')
    return f'the operators of mmcv do not work ({reason}). Do: {redo}'


def check_torch() -> list[str]:
    """Problems of torch and torchvision; runs torchvision's compiled
    non-maximum suppression."""
    try:
        torch = importlib.import_module('torch')
        ops = importlib.import_module('torchvision.ops')
        boxes = torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 1.9]])
        keep = ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5)
        if keep.tolist() != [1]:
            return [f'torchvision.ops.nms gave {keep.tolist()} instead of '
                    f'[1]. Do: {FRESH}']
    except Exception as error:
        return [explain_torch(error)]
    return []


def check_operators() -> list[str]:
    """Problems of mmcv; runs its compiled non-maximum suppression."""
    try:
        torch = importlib.import_module('torch')
        ops = importlib.import_module('mmcv.ops')
        boxes = torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 1.9]])
        keep = ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5)[1]
        if keep.tolist() != [1]:
            return [f'mmcv.ops.nms gave {keep.tolist()} instead of [1]. '
                    f'Do: {FRESH}']
    except Exception as error:
        return [explain_operators(error)]
    return []


def check_packages() -> list[str]:
    """Problems with the import of the OpenMMLab packages, which check each
    other's versions, and of mmkd_rl."""
    problems = []
    for name in ('mmpretrain.apis', 'mmdet.apis', 'mmseg.apis', 'mmkd_rl',
                 'mmkd_rl.engine.hooks'):
        try:
            # Packages print which optional dependencies are missing.
            with warnings.catch_warnings(), \
                    contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter('ignore')
                importlib.import_module(name)
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            problems.append(f'{name.partition(".")[0]} cannot be imported '
                            f'({reason}). '
                            f'Do: {AGAIN}')
    if not problems:
        folder = Path(sys.modules['mmkd_rl'].__path__[0], '.mim', 'configs')
        if not folder.is_dir():
            problems.append(f'{folder} is missing, so that no config can say '
                            f'mmkd_rl::... Do: {AGAIN}')
    return problems


def check_gpu() -> list[str]:
    """A note if there is an NVIDIA driver but torch finds no GPU."""
    import torch
    if torch.cuda.is_available() or not shutil.which('nvidia-smi'):
        return []
    return [f'there is an NVIDIA driver, but torch {torch.__version__} '
            f'(CUDA {torch.version.cuda}) does not find a GPU: the driver may '
            'be too old for it, or CUDA_VISIBLE_DEVICES hides it. Training '
            'will run on the CPU']


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--quiet', action='store_true', help='print problems only')
    args = parser.parse_args()

    files = [ROOT / 'requirements' / f'{name}.txt'
             for name in ('runtime', 'mminstall', 'tools', 'optional')]
    # A package installed from a wheel has no requirements folder.
    pins = read_pins(path for path in files if path.exists())
    problems, notes = check_versions(pins)
    # If torch is broken, the later checks would report it again for each
    # package.
    found = check_torch()
    if not found:
        found = check_operators()
        notes += check_gpu()
        found += check_packages()
    problems += found

    for text in problems:
        print(f'[check] PROBLEM: {text}', file=sys.stderr)
    if not args.quiet:
        for text in notes:
            print(f'[check] note: {text}')
        if not problems:
            versions = {n: installed_version(n) or version_of_twin(n)
                        for n in ('torch', 'torchvision', *TWINS)}
            print('[check] all is well: ' + ', '.join(
                f'{re.sub("^onedl-", "", n)} {v}'
                for n, v in versions.items()))
    return 1 if problems else 0


def version_of_twin(name: str) -> str | None:
    """Version of the upstream distribution that stands in for ``name``."""
    return next(filter(None, map(installed_version, TWINS.get(name, ()))),
                None)


if __name__ == '__main__':
    sys.exit(main())
