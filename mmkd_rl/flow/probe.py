"""Run a student and its teachers once, when the model is built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmkd_rl.flow.trace import Trace
from mmkd_rl.records import Batch
from mmkd_rl.teachers import TeacherPool


def look_at(
        backbone: nn.Module, teachers: TeacherPool,
        size: int | Sequence[int] | None
) -> tuple[Tensor, Trace, dict[str, Trace]]:
    """Trace a forward pass of each network, on the smallest images on which
    all of them run.

    Args:
        backbone: The student's backbone.
        teachers: The teachers.
        size: See :func:`KnowledgeFlowBackbone`, ``probe_size``.

    Returns:
        The grey images; the student's trace; each teacher's trace by name.

    Raises:
        ValueError: A network fails on images of each size.
    """
    failed = None
    for shape in _shapes(backbone, size):
        images = torch.zeros(2, *shape)
        try:
            return images, _trace(backbone, images), {
                t.name: Trace(t.root, partial(t.try_on, Batch(images)),
                              f'teacher {t.name!r}')
                for t in teachers}
        except (RuntimeError, AssertionError, ValueError) as error:
            failed = failed or (shape, error)
    assert failed is not None
    first, reason = failed
    raise ValueError(
        f'{reason} (found with grey images of shape {first}; set '
        'probe_size=SIDE or (C, H, W) for another size)') from reason


@torch.no_grad()
def _trace(backbone: nn.Module, images: Tensor) -> Trace:
    """Trace the student's forward pass.

    Raises:
        ValueError: The student fails on these images.
    """
    training = backbone.training
    backbone.eval()
    try:
        return Trace(backbone, partial(backbone, images), 'student')
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f'student: {type(backbone).__name__} fails on images of shape '
            f'{tuple(images.shape)}: {error}') from error
    finally:
        backbone.train(training)


def _shapes(backbone: nn.Module, size: int | Sequence[int] | None
            ) -> list[tuple[int, ...]]:
    """(C, H, W) of the images to try, in order."""
    first = next((p for p in backbone.parameters() if p.ndim == 4), None)
    channels = 3
    if first is not None:
        groups = next((m.groups for m in backbone.modules()
                       if isinstance(m, nn.Conv2d)), 1)
        channels = first.shape[1] * groups
    if size is None:
        size = getattr(backbone, 'input_shape',
                       getattr(backbone, 'img_size', None))
    # YOLOX' first convolution has the channels of four neighbouring pixels.
    depths = [channels] if channels == 3 else [channels, 3]
    if size is None:
        return [(depth, side, side) for depth in depths
                for side in (64, 224)]
    pair = (size, ) * 2 if isinstance(size, int) else size
    if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3) or \
            not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError('probe_size must be a side, (H, W) or (C, H, W), got '
                         f'{size!r}')
    return [tuple(pair)] if len(pair) == 3 else [
        (depth, *pair) for depth in depths]


def extra_tokens(network: nn.Module) -> int | None:
    """Number of tokens without a position (class tokens), if the network has
    an attribute with it."""
    for name in ('num_extra_tokens', 'num_prefix_tokens'):
        for module in (network, getattr(network, 'model', None)):
            if isinstance(getattr(module, name, None), int):
                return getattr(module, name)
    return None


def image_size(images: Tensor) -> tuple[int, int] | None:
    """(H, W) of images; ``None`` for inputs of other kinds."""
    return (images.shape[2], images.shape[3]) if images.ndim == 4 else None
