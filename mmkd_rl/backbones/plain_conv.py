"""Plain convolutional networks: convolution, norm, ReLU and max pooling.

The two of Chen's collection for PyTorch (2017), which Liu, Peng and Schwing,
Knowledge flow, ICLR 2019, Sec. 7.1, use on CIFAR and on STL-10, and any other
of their kind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, check_whole, norm

# Widths in multiples of `width`. Both bring their images down to 1x1.
PRESETS: dict[str, tuple] = {
    # 32x32: 32, 16, 8, 4 without padding
    'cifar': ((1, 1), (2, 2), (4, 4), dict(channels=(8, ), padding=0)),
    # 96x96: 96, 48, 24, 12, 6 without padding
    'stl10': ((1, ), (2, ), (4, ), (4, ), dict(channels=(8, 8), padding=0)),
}
NORM = dict(type='BN', affine=False)


class ConvLayer(nn.Sequential):
    """relu(norm(conv(x))), as ``conv``, ``bn`` and ``relu``."""

    def __init__(self, in_channels: int, out_channels: int, padding: int,
                 norm_cfg: dict, activation: nn.Module):
        super().__init__(
            OrderedDict(
                # No bias: the norm would take it away again.
                conv=nn.Conv2d(
                    in_channels, out_channels, 3, padding=padding,
                    bias=False),
                bn=norm(norm_cfg, out_channels),
                relu=activation))


@MODELS.register_module()
class PlainConvNet(CifarBackbone):
    """Stages of 3x3 convolutions; 2x2 max pooling between them.

    A pooling stands at the head of the stage behind it, so that each stage
    ends in an activation; the one behind the last stage is ``pool``. Module
    paths for taps: ``layer1``, ``layer2``, ..., and in a stage
    ``layer2.2.relu`` (number 0 is the pooling there). Without a stem:
    ``frozen_stages=0`` freezes nothing.

    Args:
        stages: ``'cifar'`` (Chen's network for 32x32 images, four stages),
            ``'stl10'`` (the one for 96x96, five stages), or a list with one
            entry a stage: the width of each convolution in multiples of
            ``width``, as ``(2, 2)``, or ``dict(channels=(2, 2), padding=0)``.
        width: Channels of a convolution of width 1. Chen's networks have 128
            and 32; a student with half the channels has half of it.
        in_channels: Channels of the input images.
        last_pool: Pool behind the last stage, too.
        **kwargs: Options of :class:`CifarBackbone`; the default ``norm_cfg``
            is batch norm without scale and shift, as in Chen's networks.

    Raises:
        ValueError: A name, stage or width that cannot be.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import PlainConvNet
        >>> net = PlainConvNet('cifar', width=16, out_indices=(0, 3))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 16, 32, 32), (1, 128, 1, 1)]
    """

    stem = ()

    def __init__(self,
                 stages: str | Sequence = 'cifar',
                 width: int = 128,
                 in_channels: int = 3,
                 last_pool: bool = True,
                 **kwargs: Any):
        check_whole('PlainConvNet: width', width)
        plan = self._plan(stages)
        if kwargs.get('norm_cfg') is None:
            kwargs['norm_cfg'] = NORM
        super().__init__([width * widths[-1] for widths, _ in plan], **kwargs)

        channels = in_channels
        for i, (widths, padding) in enumerate(plan):
            blocks: list[nn.Module] = [nn.MaxPool2d(2)] if i else []
            for multiple in widths:
                blocks.append(
                    ConvLayer(channels, width * multiple, padding,
                              self.norm_cfg, self.activation()))
                channels = width * multiple
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.pool = nn.MaxPool2d(2) if last_pool else nn.Identity()
        self._freeze()

    @staticmethod
    def _plan(stages: str | Sequence) -> list[tuple[tuple[int, ...], int]]:
        """Widths and padding of each stage."""
        if isinstance(stages, str):
            if stages not in PRESETS:
                raise ValueError(
                    f'PlainConvNet: stages must be one of {sorted(PRESETS)} '
                    'or a list of stages, as [(1, 1), (2, 2)], got '
                    f'{stages!r}')
            stages = PRESETS[stages]
        if not isinstance(stages, Sequence) or not stages:
            raise ValueError('PlainConvNet: stages must be a list of one or '
                             f'more stages, got {stages!r}')
        plan = []
        for i, stage in enumerate(stages):
            key = f'PlainConvNet: stages[{i}]'
            options = dict(stage) if isinstance(stage, dict) else dict(
                channels=stage)
            widths = options.pop('channels', None)
            padding = options.pop('padding', 1)
            if options or not isinstance(widths, Sequence) or not widths \
                    or isinstance(widths, str):
                raise ValueError(
                    f'{key} must be the widths of its convolutions, as (2, '
                    f'2), or dict(channels=(2, 2), padding=0), got {stage!r}')
            for j, multiple in enumerate(widths):
                check_whole(f'{key}.channels[{j}]', multiple)
            check_whole(f'{key}.padding', padding, least=0)
            plan.append((tuple(widths), padding))
        return plan

    def _forward_stem(self, x: Tensor) -> Tensor:
        return x

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        return self.pool(x) if index == self.num_stages - 1 else x
