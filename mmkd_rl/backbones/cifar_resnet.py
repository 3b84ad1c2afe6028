"""ResNet for 32x32 images: 6n + 2 layers, three stages of n basic blocks.

He et al., Deep residual learning for image recognition, 2016, section 4.2,
with a 1x1 convolution where a shortcut changes shape (the paper's option B;
there option A is used on CIFAR). Option B and the x4 networks, with a stem of
32 and stages of 64, 128 and 256 channels, are what the distillation
literature calls ResNet-56, ResNet-8x4 and so on.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, check_depth, conv3x3, norm

# width: channels of the stem and of the three stages
CHANNELS = {1: (16, 16, 32, 64), 4: (32, 64, 128, 256)}


class CifarBasicBlock(BaseModule):
    """relu(x + bn(conv(relu(bn(conv(x)))))).

    The input of ``relu2`` is the block's output before its activation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int,
                 norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = norm(norm_cfg, out_channels)
        self.relu1 = build_activation_layer(act_cfg)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = norm(norm_cfg, out_channels)
        self.relu2 = build_activation_layer(act_cfg)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(
                    in_channels, out_channels, 1, stride=stride, bias=False),
                norm(norm_cfg, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu2(x + identity)


@MODELS.register_module()
class CifarResNet(CifarBackbone):
    """ResNet-20, ResNet-56, ResNet-8x4, ResNet-32x4 and their family.

    Module paths for taps: ``conv1``, ``bn1``, ``relu``, ``layer1`` to
    ``layer3``, and in a block ``layer3.2.relu2``.

    Args:
        depth: Layers with weights, 6n + 2: 8, 14, 20, 32, 44, 56, 110, ...
        width: 1 for stages of 16, 32 and 64 channels, 4 for 64, 128 and 256.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: A depth or width that does not exist.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarResNet
        >>> net = CifarResNet(depth=8, width=4, out_indices=(0, 1, 2))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8)]
    """

    def __init__(self,
                 depth: int,
                 width: int = 1,
                 in_channels: int = 3,
                 **kwargs: Any):
        num_blocks = check_depth('CifarResNet', depth, 2)
        if width not in CHANNELS:
            raise ValueError(f'CifarResNet: width must be one of '
                             f'{sorted(CHANNELS)}, got {width!r}')
        stem, *stage_channels = CHANNELS[width]
        super().__init__(stage_channels, **kwargs)
        self.depth = depth
        self.width = width

        self.conv1 = conv3x3(in_channels, stem)
        self.bn1 = norm(self.norm_cfg, stem)
        self.relu = self.activation()
        channels = stem
        for i, out_channels in enumerate(stage_channels):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    CifarBasicBlock(channels, out_channels, stride,
                                    self.norm_cfg, self.act_cfg))
                channels = out_channels
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self._freeze()
