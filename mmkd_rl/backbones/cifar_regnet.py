"""RegNets for 32x32 images: four stages of bottlenecks with grouped 3x3s.

Radosavovic et al., Designing network design spaces, 2020: the widths, depths
and group widths of RegNetX-200MF and -400MF. For 32x32 images the literature
uses a stem of 64 channels without stride and strides 1, 1, 2, 2.

What the distillation literature calls RegNetY-400MF on CIFAR has the widths
of RegNetX-400MF and squeeze-and-excitation added, not the published
RegNetY-400MF's own widths (48, 104, 208, 440); the sizes that MTKD-RL prints
are those of this network.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, conv3x3, norm

STEM = 64
STRIDES = (1, 1, 2, 2)


@dataclasses.dataclass(frozen=True)
class RegNetArch:
    """Sizes of one network; ``se_ratio=0``: no squeeze-and-excitation."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group_width: int
    se_ratio: float = 0.


ARCHS = {
    'regnetx_200mf': RegNetArch((1, 1, 4, 7), (24, 56, 152, 368), 8),
    'regnetx_400mf': RegNetArch((1, 2, 7, 12), (32, 64, 160, 384), 16),
    'regnety_400mf': RegNetArch((1, 2, 7, 12), (32, 64, 160, 384), 16, 0.25),
}


class RegNetBlock(BaseModule):
    """relu(x + bn(conv1x1(se(relu(bn(conv3x3(relu(bn(conv1x1(x))))))))).

    The 3x3 convolution is grouped and has the stride; se is optional.
    The input of ``relu3`` is the block's output before its activation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int,
                 group_width: int, se_ratio: float, norm_cfg: dict,
                 act_cfg: dict):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = norm(norm_cfg, out_channels)
        self.relu1 = build_activation_layer(act_cfg)
        self.conv2 = nn.Conv2d(
            out_channels,
            out_channels,
            3,
            stride=stride,
            padding=1,
            groups=out_channels // group_width,
            bias=False)
        self.bn2 = norm(norm_cfg, out_channels)
        self.relu2 = build_activation_layer(act_cfg)
        # Squeezed from the block's input width, as in the RegNet paper.
        self.se = SqueezeExcitation(
            out_channels, round(in_channels * se_ratio)) if se_ratio else \
            nn.Identity()
        self.conv3 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn3 = norm(norm_cfg, out_channels)
        self.relu3 = build_activation_layer(act_cfg)
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
        x = self.se(self.relu2(self.bn2(self.conv2(x))))
        return self.relu3(self.bn3(self.conv3(x)) + identity)


@MODELS.register_module()
class CifarRegNet(CifarBackbone):
    """RegNetX-200MF, RegNetX-400MF and RegNetY-400MF.

    Stages 0 to 3 give maps of H, H, H / 2 and H / 4. Module paths for taps:
    ``conv1``, ``bn1``, ``relu``, ``layer1`` to ``layer4``, and in a block
    ``layer4.6.relu3``.

    Args:
        arch: ``'regnetx_200mf'``, ``'regnetx_400mf'`` or ``'regnety_400mf'``.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: No such architecture.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarRegNet
        >>> net = CifarRegNet(arch='regnetx_200mf', out_indices=(2, 3))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 152, 16, 16), (1, 368, 8, 8)]
    """

    def __init__(self, arch: str, in_channels: int = 3, **kwargs: Any):
        if not isinstance(arch, str) or arch not in ARCHS:
            raise ValueError(f'CifarRegNet: arch must be one of '
                             f'{sorted(ARCHS)}, got {arch!r}')
        sizes = ARCHS[arch]
        super().__init__(sizes.widths, **kwargs)
        self.arch = arch

        self.conv1 = conv3x3(in_channels, STEM)
        self.bn1 = norm(self.norm_cfg, STEM)
        self.relu = self.activation()
        channels = STEM
        for i, (depth, width) in enumerate(zip(sizes.depths, sizes.widths)):
            blocks = []
            for j in range(depth):
                blocks.append(
                    RegNetBlock(channels, width, STRIDES[i] if j == 0 else 1,
                                sizes.group_width, sizes.se_ratio,
                                self.norm_cfg, self.act_cfg))
                channels = width
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self._freeze()
