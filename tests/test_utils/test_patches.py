"""Patches of MMEngine, which are not applied by importing the package."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint

from mmkd_rl.utils import atomic_backend
from mmkd_rl.utils.configs import load_config


def test_mmengines_checkpoints_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'epoch_1.pth'
    save_checkpoint(dict(state_dict=dict(w=torch.ones(3))), str(path))
    assert _load_checkpoint(str(path))['state_dict']['w'].sum() == 3
    assert oct(path.stat().st_mode)[-3:] == oct(0o666 & ~_umask())[-3:]

    def dies_halfway(file, content):
        with open(file, 'wb') as stream:
            stream.write(content[:len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_backend, '_write', dies_halfway)
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(
                dict(state_dict=dict(w=torch.zeros(3))),
                str(path.with_name(name)))
    # The old file is unchanged, and no part of the new one is left.
    assert os.listdir(path.parent) == ['epoch_1.pth']
    assert _load_checkpoint(str(path))['state_dict']['w'].sum() == 3


def test_the_base_of_a_file_may_be_mmsegs(tmp_path, monkeypatch):
    """Without the patch MMEngine looks for a package of another name."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    file = tmp_path / 'a.py'
    file.write_text('_base_ = "mmseg::_base_/default_runtime.py"')
    with pytest.raises(ModuleNotFoundError):
        Config.fromfile(file)
    assert load_config(file).default_scope == 'mmseg'


def test_importing_leaves_mmengine_as_it_is():
    """Import all modules of the package in a separate process."""
    script = """
import pkgutil
import mmengine.runner.activation_checkpointing as checkpointing
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio.backends import backends
from mmengine.runner import Runner

def state():
    packages = {k: v for k, v in MODULE2PACKAGE.items() if k != 'mmkd_rl'}
    return (checkpointing.wrap_forward, packages, dict(backends),
            {k: v for k, v in vars(Runner).items()})

before = state()
import mmkd_rl
for module in pkgutil.walk_packages(mmkd_rl.__path__, 'mmkd_rl.'):
    __import__(module.name)
assert state() == before
mmkd_rl.utils.patches.patch_mmengine()
mmkd_rl.utils.patches.patch_mmengine()
assert state() != before
"""
    done = subprocess.run([sys.executable, '-c', script],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
