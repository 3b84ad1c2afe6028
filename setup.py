"""Packaging of mmkd_rl.

``configs/`` and ``tools/`` lie at the top of the repository, and MMEngine and
MIM look for them in ``<package>/.mim``. An editable install gets symbolic
links there; a wheel gets copies, which go straight into the build folder, so
that building leaves no trace in the sources.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What MMEngine and MIM read from an installed package. hub.get_config wants a
# model-index.yml even where it lists no model.
MIM_FILES = ('configs', 'tools', 'model-index.yml')


def read_version():
    """Version of the package, without importing it (and torch with it)."""
    text = (ROOT / 'mmkd_rl' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.M).group(1)


def read_requirements(name):
    """Requirements of ``requirements/<name>.txt`` without its comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(
        encoding='utf-8').splitlines()
    lines = [line.split('#')[0].strip() for line in lines]
    return [line for line in lines if line]


class BuildPyWithMim(build_py):
    """``build_py`` that adds ``mmkd_rl/.mim``."""

    def run(self):
        super().run()
        if self.editable_mode:
            self._link_mim()
        else:
            # A build folder of an earlier version may hold removed configs.
            shutil.rmtree(
                Path(self.build_lib, 'mmkd_rl', '.mim'), ignore_errors=True)
            for source, target in self._mim_files():
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            outputs += [target for _, target in self._mim_files()]
        return outputs

    def _link_mim(self):
        folder = ROOT / 'mmkd_rl' / '.mim'
        folder.mkdir(exist_ok=True)
        for name in MIM_FILES:
            link = folder / name
            if link.is_symlink() or link.is_file():
                link.unlink()
            elif link.is_dir():
                shutil.rmtree(link)
            link.symlink_to(Path('..', '..', name))

    def _mim_files(self):
        """Pairs of (file in the sources, its place in the build folder)."""
        target_root = Path(self.build_lib, 'mmkd_rl', '.mim')
        for name in MIM_FILES:
            top = ROOT / name
            for path in [top] if top.is_file() else sorted(top.rglob('*')):
                if path.is_file() and '__pycache__' not in path.parts:
                    relative = path.relative_to(ROOT)
                    yield str(path), str(target_root / relative)


# requirements/*.txt pin what was tested; an installed wheel asks for ranges,
# so that it fits into an environment that exists. The OpenMMLab packages are
# an extra, as everywhere in OpenMMLab: they come under two names each
# (onedl-mmcv, mmcv), and a hard requirement on one of them would overwrite
# the other's files.
# The lower ones are tried with `make test-bound`.
INSTALL_REQUIRES = [
    'torch>=2.6',
    'torchvision>=0.21',
    'numpy>=1.26',
    'matplotlib>=3.5',
    'pillow>=9.0',
    'pydantic>=2.5',
    'scikit-learn>=1.1',
]
EXTRAS = {
    name: read_requirements(name)
    for name in ('mminstall', 'tools', 'tests', 'docs', 'optional')
}
EXTRAS['all'] = sorted({line for lines in EXTRAS.values() for line in lines})

readme = ROOT / 'README.md'

setup(
    name='mmkd-rl',
    version=read_version(),
    description='Multi-teacher knowledge distillation for the OpenMMLab '
    'stack, with teachers weighted by reinforcement learning',
    long_description=readme.read_text(
        encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='knowledge distillation, reinforcement learning, OpenMMLab',
    packages=find_packages(include=['mmkd_rl', 'mmkd_rl.*']),
    python_requires='>=3.10',
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildPyWithMim},
    zip_safe=False,
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
