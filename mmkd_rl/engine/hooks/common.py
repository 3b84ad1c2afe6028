"""Functions that several hooks use."""

from __future__ import annotations

import os

from matplotlib.figure import Figure
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner

from mmkd_rl.distillers import (
    Distillation,
    check_outermost,
    distillation_of,
)
from mmkd_rl.flow import KnowledgeFlow
from mmkd_rl.visualization.common import to_array


def unwrapped(runner: Runner) -> BaseModel:
    """The runner's model without its wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(
        runner.model) else runner.model


def distillation_in(runner: Runner, hook: str) -> Distillation:
    """The distillation of the trained model.

    Raises:
        TypeError: The model has no distillation, or only a part of it has
            one, whose hooks would not run.
    """
    model = unwrapped(runner)
    found = distillation_of(model)
    if found is not None:
        return found
    check_outermost(model)
    raise TypeError(f'custom_hooks has {hook}, which needs a '
                    'MultiTeacherDistiller as model, got a '
                    f'{type(model).__name__}')


def taught_by_us(runner: Runner, hook: str) -> BaseModel:
    """The trained model, if it has a distillation or Knowledge Flow.

    Raises:
        TypeError: The model has neither.
    """
    model = unwrapped(runner)
    if distillation_of(model) is None and not any(
            isinstance(m, KnowledgeFlow) for m in model.modules()):
        raise TypeError(
            f'custom_hooks has {hook}, which needs a MultiTeacherDistiller '
            'as model or a KnowledgeFlowBackbone in it, got a '
            f'{type(model).__name__}')
    return model


def check_resumed(saved: dict | None, now: dict) -> None:
    """Check that a resumed run has the same teachers in the same order, on
    which learned weights depend.

    Args:
        saved: Description of the run in the checkpoint; ``None`` in
            checkpoints of earlier versions.
        now: Description of the present run.

    Raises:
        ValueError: The two differ.
    """
    for name, value in now.items():
        if saved is not None and saved.get(name, value) != value:
            raise ValueError(
                'the checkpoint to resume from was trained with '
                f'{name}={saved[name]!r}, but the config has {value!r}. Use '
                'the same, or start a new run from its weights with '
                'load_from and another work_dir')


def save_picture(runner: Runner, name: str, figure: Figure) -> None:
    """Write ``NAME.png`` into the work directory and show it in every
    visualisation backend."""
    path = os.path.join(runner.work_dir, f'{name}.png')
    figure.savefig(path, dpi=120)
    runner.visualizer.add_image(name, to_array(figure), step=runner.iter)
    runner.logger.info(f'{name}: {path}')
