"""VGG for 32x32 images: five stages of 3x3 convolutions with batch norm.

Simonyan and Zisserman, Very deep convolutional networks for large-scale image
recognition, 2015, as the distillation literature has it: three poolings in
place of five (before stages 2 to 4), one linear layer as classifier, and
VGG-8 with one convolution a stage.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, norm

WIDTHS = (64, 128, 256, 512, 512)
# depth with the classifier's layers as the VGG paper counts them: convolutions
# in each stage
DEPTHS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGGBlock(BaseModule):
    """relu(bn(conv(x))), with max pooling of x if the resolution changes.

    The input of ``relu`` is the block's output before its activation.
    """

    def __init__(self, in_channels: int, out_channels: int, pool: bool,
                 norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        # With a bias, which the norm makes useless: the published
        # checkpoints have it.
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn = norm(norm_cfg, out_channels)
        self.relu = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H, W] or [B, out, H / 2, W / 2]."""
        return self.relu(self.bn(self.conv(self.pool(x))))


@MODELS.register_module()
class CifarVGG(CifarBackbone):
    """VGG-8, VGG-11, VGG-13, VGG-16 and VGG-19 with batch norm.

    Stages 0 to 4 give maps of H, H / 2, H / 4, H / 8 and H / 8. There is no
    stem: ``frozen_stages=0`` freezes nothing. Module paths for taps:
    ``layer1`` to ``layer5``, and in a block ``layer5.0.relu``.

    Args:
        depth: 8, 11, 13, 16 or 19.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: A depth that does not exist.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarVGG
        >>> net = CifarVGG(depth=8, out_indices=(3, 4))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 512, 4, 4), (1, 512, 4, 4)]
    """

    stem = ()

    def __init__(self, depth: int, in_channels: int = 3, **kwargs: Any):
        if not isinstance(depth, int) or depth not in DEPTHS:
            raise ValueError(f'CifarVGG: depth must be one of '
                             f'{sorted(DEPTHS)}, got {depth!r}')
        super().__init__(WIDTHS, **kwargs)
        self.depth = depth

        channels = in_channels
        for i, (num_blocks, width) in enumerate(zip(DEPTHS[depth], WIDTHS)):
            blocks = []
            for j in range(num_blocks):
                blocks.append(
                    VGGBlock(channels, width, i in (1, 2, 3) and j == 0,
                             self.norm_cfg, self.act_cfg))
                channels = width
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self._freeze()

    def _forward_stem(self, x: Tensor) -> Tensor:
        return x
