"""MobileNetV2 for 32x32 images.

Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, 2018,
in the version of the distillation literature: ReLU in place of ReLU6, the
first block also expands (by 1), widths are rounded down to whole numbers, not
to multiples of 8, the stem has stride 2 and the 24-channel blocks stride 1.

MTKD-RL's Table 1 prints 2.4M parameters and 22.4M multiply-adds: that is
width 1.0. Width 0.5, the usual student elsewhere, has 0.81M and 6.5M.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, conv3x3, norm

STEM = 32
LAST = 1280
# stage: rows of (expansion, channels, blocks, stride of the first block); a
# stage ends where the next map is smaller
STAGES = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2), ),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)


class InvertedResidual(BaseModule):
    """bn(conv1x1(relu(bn(depthwise3x3(relu(bn(conv1x1(x)))))))), plus x where
    the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int,
                 expansion: int, norm_cfg: dict, act_cfg: dict):
        super().__init__()
        hidden = in_channels * expansion
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = norm(norm_cfg, hidden)
        self.relu1 = build_activation_layer(act_cfg)
        self.conv2 = nn.Conv2d(
            hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = norm(norm_cfg, hidden)
        self.relu2 = build_activation_layer(act_cfg)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = norm(norm_cfg, out_channels)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return x + out if self.adds_input else out


@MODELS.register_module()
class CifarMobileNetV2(CifarBackbone):
    """MobileNetV2 of any width.

    Stages 0 to 3 give maps of H / 2, H / 4, H / 8 and H / 16. Stage 3 is
    returned after the last 1x1 convolution (``conv2``, ``bn2``, ``relu2``)
    with 1280 channels; the others as the next stage receives them. Module
    paths for taps: ``conv1``, ``bn1``, ``relu``, ``layer1`` to ``layer4``
    (its output: the 320 x ``width_mult`` channels before ``conv2``),
    ``conv2``, ``bn2``, ``relu2``.

    Args:
        width_mult: Factor of all channels, > 0; the last 1280 only grow.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: A width that leaves a layer without channels.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarMobileNetV2
        >>> net = CifarMobileNetV2(width_mult=0.5, out_indices=(2, 3))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 48, 4, 4), (1, 1280, 2, 2)]
    """

    tail = ('conv2', 'bn2')

    def __init__(self,
                 width_mult: float = 1.0,
                 in_channels: int = 3,
                 **kwargs: Any):
        if not isinstance(width_mult, (int, float)) or width_mult < 1 / 16:
            raise ValueError('CifarMobileNetV2: width_mult must be >= 1/16 '
                             f'(0.5 and 1.0 are usual), got {width_mult!r}')
        last = int(LAST * max(width_mult, 1))
        widths = [int(rows[-1][1] * width_mult) for rows in STAGES]
        super().__init__((*widths[:-1], last), **kwargs)
        self.width_mult = width_mult

        channels = int(STEM * width_mult)
        self.conv1 = conv3x3(in_channels, channels, 2)
        self.bn1 = norm(self.norm_cfg, channels)
        self.relu = self.activation()
        for i, rows in enumerate(STAGES):
            blocks = []
            for expansion, width, depth, stride in rows:
                out_channels = int(width * width_mult)
                for j in range(depth):
                    blocks.append(
                        InvertedResidual(channels, out_channels,
                                         stride if j == 0 else 1, expansion,
                                         self.norm_cfg, self.act_cfg))
                    channels = out_channels
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.conv2 = nn.Conv2d(channels, last, 1, bias=False)
        self.bn2 = norm(self.norm_cfg, last)
        self.relu2 = self.activation()
        self._freeze()

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        if index < self.num_stages - 1:
            return x
        return self.relu2(self.bn2(self.conv2(x)))
