"""What the hooks share: from a runner to the distiller in it."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd_rl.distillers import MultiTeacherDistiller


def distiller_of(runner: Runner, hook: str) -> MultiTeacherDistiller:
    """The runner's model without its wrapper for distributed training.

    Raises:
        TypeError: It is no distiller.
    """
    model = runner.model.module if is_model_wrapper(
        runner.model) else runner.model
    if not isinstance(model, MultiTeacherDistiller):
        raise TypeError(f'custom_hooks has {hook}, which needs a '
                        'MultiTeacherDistiller as model, got a '
                        f'{type(model).__name__}')
    return model
