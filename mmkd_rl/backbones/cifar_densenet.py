"""DenseNet for 32x32 images: three dense blocks at 32x32, 16x16 and 8x8.

Huang, Liu, van der Maaten and Weinberger, Densely connected convolutional
networks, CVPR 2017, Sec. 3 and 4. Layer l of a block gets all earlier maps,
x_l = H_l([x_0, ..., x_{l-1}]), H = conv3x3(relu(bn(.))) with k maps, or with
a bottleneck conv3x3(relu(bn(conv1x1(relu(bn(.)))))) over 4k maps. A
transition between blocks keeps the fraction theta of the maps (a 1x1
convolution after norm and ReLU) and averages 2x2. As in the authors' code,
and not in the paper's text, the transition has a ReLU.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, check_whole, conv3x3, norm

BOTTLENECK = 4


class DenseLayer(BaseModule):
    """[x, H(x)]: appends k maps to the input.

    Args:
        in_channels: Number of input maps.
        growth_rate: k.
        bottleneck: A 1x1 convolution to 4k maps first.
        dropout: Dropout probability after each convolution.
        norm_cfg: Normalisation.
        act_cfg: Activation.
    """

    def __init__(self, in_channels: int, growth_rate: int, bottleneck: bool,
                 dropout: float, norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.bn1 = norm(norm_cfg, in_channels)
        self.relu1 = build_activation_layer(act_cfg)
        self.bottleneck = bottleneck
        if bottleneck:
            width = BOTTLENECK * growth_rate
            self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn2 = norm(norm_cfg, width)
            self.relu2 = build_activation_layer(act_cfg)
            self.conv2 = conv3x3(width, growth_rate)
        else:
            self.conv1 = conv3x3(in_channels, growth_rate)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, in + k, H, W]."""
        out = self.dropout(self.conv1(self.relu1(self.bn1(x))))
        if self.bottleneck:
            out = self.dropout(self.conv2(self.relu2(self.bn2(out))))
        return torch.cat([x, out], 1)


class Transition(BaseModule):
    """Fewer maps of half the size: avgpool(conv1x1(relu(bn(x))))."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float,
                 norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.bn = norm(norm_cfg, in_channels)
        self.relu = build_activation_layer(act_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / 2, W / 2]."""
        return self.pool(self.dropout(self.conv(self.relu(self.bn(x)))))


@MODELS.register_module()
class CifarDenseNet(CifarBackbone):
    """DenseNet (k, L) and DenseNet-BC (k, L).

    A stage is the transition before a dense block and the block. Stage 2 is
    returned after the last norm and activation (``bn1`` and ``relu``,
    so ``relu``'s input is the value before the activation); stages 0 and 1
    are returned as the next stage receives them. Module paths for taps:
    ``conv1``, ``layer1`` to ``layer3``, ``bn1``, ``relu``. An image may have
    any size of 4 pixels or more.

    Args:
        depth: L, layers with weights, 3n + 4: 40, 100, 190, 250, ...; with a
            bottleneck 6n + 4: 100, 190, 250, ...
        growth_rate: k, the maps that a layer adds.
        bottleneck: A 1x1 convolution before each 3x3 one (the paper's B).
        reduction: theta, the fraction of the maps that a transition keeps,
            in (0, 1]; the paper's BC has 0.5 (and 2k maps in the stem where
            others have 16).
        dropout: Probability behind each convolution but the first, in
            [0, 1); the paper's 0.2 is for training without augmentation.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`; ``with_cp`` saves most
            of the memory.

    Raises:
        ValueError: A depth, growth rate, reduction or dropout that cannot be.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarDenseNet
        >>> net = CifarDenseNet(depth=10, growth_rate=12)
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 88, 8, 8)]
    """

    stem = ('conv1', )
    tail = ('bn1', )

    def __init__(self,
                 depth: int = 100,
                 growth_rate: int = 24,
                 bottleneck: bool = False,
                 reduction: float = 1.0,
                 dropout: float = 0.,
                 in_channels: int = 3,
                 **kwargs: Any):
        step = 6 if bottleneck else 3
        layers, rest = divmod(depth - 4, step) if isinstance(depth, int) \
            and not isinstance(depth, bool) else (0, 1)
        if rest or layers < 1:
            raise ValueError(
                f'CifarDenseNet: depth must be {step}n + 4 with n >= 1 and '
                f'bottleneck={bottleneck} (40, 100, 190 or 250, say), got '
                f'{depth!r}')
        check_whole('CifarDenseNet: growth_rate', growth_rate)
        if not 0 < reduction <= 1:
            raise ValueError('CifarDenseNet: reduction must be in (0, 1], '
                             f'got {reduction!r}')
        if not 0 <= dropout < 1:
            raise ValueError('CifarDenseNet: dropout must be in [0, 1), got '
                             f'{dropout!r}')
        compressed = bottleneck and reduction < 1
        stem = 2 * growth_rate if compressed else 16
        stage_channels: list[int] = []
        for i in range(3):
            before = int(stage_channels[-1] * reduction) if i else stem
            stage_channels.append(before + layers * growth_rate)
        super().__init__(stage_channels, **kwargs)
        self.depth = depth
        self.growth_rate = growth_rate

        parts = (dropout, self.norm_cfg, self.act_cfg)
        self.conv1 = conv3x3(in_channels, stem)
        channels = stem
        for i in range(3):
            blocks: list[nn.Module] = []
            if i:
                kept = int(channels * reduction)
                blocks.append(Transition(channels, kept, *parts))
                channels = kept
            for _ in range(layers):
                blocks.append(
                    DenseLayer(channels, growth_rate, bottleneck, *parts))
                channels += growth_rate
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.bn1 = norm(self.norm_cfg, channels)
        self.relu = self.activation()
        self._freeze()

    def _forward_stem(self, x: Tensor) -> Tensor:
        return self.conv1(x)

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        return self.relu(self.bn1(x)) if index == self.num_stages - 1 else x
