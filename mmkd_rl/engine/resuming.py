"""Compares a checkpoint to resume from with the config and the work
directory."""

from __future__ import annotations

import logging
import math
from typing import Any

from mmengine.logging import print_log
from torch.optim import Optimizer

from mmkd_rl.utils.checkpoint_io import in_folder

#: Entries of parameter groups that depend on PyTorch's version or on
#: schedulers, not on the kind of optimiser.
_OTHERS = {'initial_lr', 'foreach', 'maximize', 'capturable', 'fused',
           'differentiable', 'decoupled_weight_decay', 'param_names',
           'params', 'swap_lr'}


def forget_other_folders(checkpoint: dict, work_dir: str) -> None:
    """Remove paths of checkpoints in other folders from a checkpoint's
    records: MMEngine would delete the best one of a run from which this one
    was copied when it has a better one."""
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    for name in [n for n in info if n.startswith(('best_ckpt', 'last_ckpt'))]:
        path = in_folder(str(info[name]), work_dir)
        if path is None:
            del info[name]
        else:
            info[name] = path


def check_optimizer(saved: Any, optimizer: Optimizer) -> None:
    """Compare a checkpoint's optimiser with the config's.

    Args:
        saved: State of the checkpoint's optimiser.
        optimizer: The optimiser that the config builds.

    Raises:
        ValueError: The optimisers are of different kinds. A different
            learning rate gives a warning only: MMEngine continues with the
            checkpoint's.
    """
    groups = saved.get('param_groups') if isinstance(saved, dict) else None
    if not groups:
        return
    theirs, own = groups[0], optimizer.param_groups[0]
    before, now = (set(group) - _OTHERS for group in (theirs, own))
    if before != now:
        raise ValueError(
            '--resume: the checkpoint is of another optimizer than '
            f'{type(optimizer).__name__}: it has '
            f'{sorted(before - now) or "no more settings"}, and lacks '
            f'{sorted(now - before) or "none"}. Use the same, or start a new '
            'run from its weights with load_from, without --resume')
    rates = [group.get('initial_lr', group['lr']) for group in (theirs, own)]
    if not math.isclose(float(rates[0]), float(rates[1])):
        print_log(
            f'--resume: the run goes on with its learning rate {rates[0]:g}; '
            f"the config's {rates[1]:g} has no effect", 'current',
            logging.WARNING)
