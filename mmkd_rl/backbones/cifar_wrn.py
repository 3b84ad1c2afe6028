"""Wide ResNet for 32x32 images: 6n + 4 layers, stages 16k, 32k and 64k wide.

Zagoruyko and Komodakis, Wide residual networks, 2016: basic blocks with norm
and activation before each convolution, dropout between the two, and one norm
and activation after the last stage.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, check_depth, conv3x3, norm


class WideBasicBlock(BaseModule):
    """x + conv(dropout(relu(bn(conv(relu(bn(x))))))).

    Where the shape changes, the shortcut is a 1x1 convolution of the block's
    first activation instead of x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int,
                 dropout: float, norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.bn1 = norm(norm_cfg, in_channels)
        self.relu1 = build_activation_layer(act_cfg)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = norm(norm_cfg, out_channels)
        self.relu2 = build_activation_layer(act_cfg)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Conv2d(
                in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        out = self.relu1(self.bn1(x))
        identity = x if self.downsample is None else self.downsample(out)
        out = self.relu2(self.bn2(self.conv1(out)))
        return identity + self.conv2(self.dropout(out))


@MODELS.register_module()
class CifarWideResNet(CifarBackbone):
    """WRN-16-2, WRN-40-2, WRN-28-4 and their family.

    Stage 2 is returned after the last norm and activation (``bn1`` and
    ``relu``, so ``bn1``'s output is the value before the activation); stages
    0 and 1 are returned as the next stage receives them, before any.
    Module paths for taps: ``conv1``, ``layer1`` to ``layer3``, ``bn1``,
    ``relu``.

    Args:
        depth: Layers with weights, 6n + 4: 10, 16, 22, 28, 34, 40, ...
        widen_factor: k; the stages have 16k, 32k and 64k channels.
        dropout: Probability inside the blocks, in [0, 1).
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: A depth, widen factor or dropout that cannot be.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarWideResNet
        >>> net = CifarWideResNet(depth=16, widen_factor=2)
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 128, 8, 8)]
    """

    stem = ('conv1', )
    tail = ('bn1', )

    def __init__(self,
                 depth: int,
                 widen_factor: int,
                 dropout: float = 0.,
                 in_channels: int = 3,
                 **kwargs: Any):
        num_blocks = check_depth('CifarWideResNet', depth, 4)
        if not isinstance(widen_factor, int) or widen_factor < 1:
            raise ValueError('CifarWideResNet: widen_factor must be a whole '
                             f'number >= 1, got {widen_factor!r}')
        if not 0 <= dropout < 1:
            raise ValueError('CifarWideResNet: dropout must be in [0, 1), '
                             f'got {dropout!r}')
        stem = 16
        stage_channels = tuple(
            stem * 2**i * widen_factor for i in range(3))
        super().__init__(stage_channels, **kwargs)
        self.depth = depth
        self.widen_factor = widen_factor

        self.conv1 = conv3x3(in_channels, stem)
        channels = stem
        for i, out_channels in enumerate(stage_channels):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    WideBasicBlock(channels, out_channels, stride, dropout,
                                   self.norm_cfg, self.act_cfg))
                channels = out_channels
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.bn1 = norm(self.norm_cfg, channels)
        self.relu = self.activation()
        self._freeze()

    def _forward_stem(self, x: Tensor) -> Tensor:
        return self.conv1(x)

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        return self.relu(self.bn1(x)) if index == self.num_stages - 1 else x
