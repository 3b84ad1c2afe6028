"""ShuffleNetV2 for 32x32 images.

Ma et al., ShuffleNet V2: practical guidelines for efficient CNN architecture
design, 2018, in the version of the distillation literature: a 1x1 stem without
stride in place of the 3x3 with stride 2 and the pooling after it.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_rl.registry import MODELS

from .base import CifarBackbone, norm

STEM = 24
DEPTHS = (4, 8, 4)
# width: channels of the three stages and of the last convolution
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


class ShuffleBlock(BaseModule):
    """shuffle([x_1, g(x_2)]), or where the map shrinks shuffle([h(x), g(x)]).

    g = relu(bn(conv1x1(bn(depthwise3x3(relu(bn(conv1x1)))))))) is ``branch2``,
    h = relu(bn(conv1x1(bn(depthwise3x3)))) is ``branch1``; x_1 and x_2 are
    the two halves of the channels, and the shuffle interleaves two halves.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int,
                 norm_cfg: dict, act_cfg: dict):
        super().__init__()
        half = out_channels // 2

        def pointwise(channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, half, 1, bias=False),
                norm(norm_cfg, half),
                build_activation_layer(act_cfg)
            ]

        def depthwise(channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(
                    channels,
                    channels,
                    3,
                    stride,
                    padding=1,
                    groups=channels,
                    bias=False),
                norm(norm_cfg, channels)
            ]

        self.branch1 = None
        if stride > 1:
            self.branch1 = nn.Sequential(*depthwise(in_channels),
                                         *pointwise(in_channels))
        self.branch2 = nn.Sequential(
            *pointwise(in_channels if stride > 1 else half), *depthwise(half),
            *pointwise(half))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        if self.branch1 is None:
            kept, changed = x.chunk(2, dim=1)
        else:
            kept, changed = self.branch1(x), x
        x = torch.cat((kept, self.branch2(changed)), dim=1)
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


@MODELS.register_module()
class CifarShuffleNetV2(CifarBackbone):
    """ShuffleNetV2 of four widths.

    Stages 0 to 2 give maps of H / 2, H / 4 and H / 8. Stage 2 is returned
    behind the last 1x1 convolution (``conv2``, ``bn2``, ``relu2``); the
    others as the next stage receives them. Module paths for taps: ``conv1``,
    ``bn1``, ``relu``, ``layer1`` to ``layer3`` (its output: before
    ``conv2``), ``conv2``, ``bn2``, ``relu2``.

    Args:
        width_mult: 0.5, 1.0, 1.5 or 2.0.
        in_channels: Channels of the input images.
        **kwargs: Options of :class:`CifarBackbone`.

    Raises:
        ValueError: A width that does not exist.

    Example:
        >>> import torch
        >>> from mmkd_rl.backbones import CifarShuffleNetV2
        >>> net = CifarShuffleNetV2(width_mult=1.0, out_indices=(1, 2))
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 232, 8, 8), (1, 1024, 4, 4)]
    """

    tail = ('conv2', 'bn2')

    def __init__(self,
                 width_mult: float = 1.0,
                 in_channels: int = 3,
                 **kwargs: Any):
        if not isinstance(width_mult,
                          (int, float)) or width_mult not in CHANNELS:
            raise ValueError(f'CifarShuffleNetV2: width_mult must be one of '
                             f'{sorted(CHANNELS)}, got {width_mult!r}')
        *widths, last = CHANNELS[width_mult]
        super().__init__((*widths[:-1], last), **kwargs)
        self.width_mult = width_mult

        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = norm(self.norm_cfg, STEM)
        self.relu = self.activation()
        channels = STEM
        for i, (depth, width) in enumerate(zip(DEPTHS, widths)):
            blocks = []
            for j in range(depth):
                blocks.append(
                    ShuffleBlock(channels, width, 2 if j == 0 else 1,
                                 self.norm_cfg, self.act_cfg))
                channels = width
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.conv2 = nn.Conv2d(channels, last, 1, bias=False)
        self.bn2 = norm(self.norm_cfg, last)
        self.relu2 = self.activation()
        self._freeze()

    def _stage_output(self, index: int, x: Tensor) -> Tensor:
        if index < self.num_stages - 1:
            return x
        return self.relu2(self.bn2(self.conv2(x)))
