"""A checkpoint that is being written when the run dies is not there."""

import os

import pytest
import torch
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint

import mmkd_rl  # noqa: F401
from mmkd_rl.utils import atomic_backend


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
    # The old one is as it was, of the new one there is nothing.
    assert os.listdir(path.parent) == ['epoch_1.pth']
    assert _load_checkpoint(str(path))['state_dict']['w'].sum() == 3


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
