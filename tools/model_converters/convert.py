r"""Rename the weights of a published checkpoint for this project's configs.

    python tools/model_converters/convert.py SOURCE OUT --from FORMAT \
        [--config CONFIG]

FORMAT is the library whose names the weights in the file have:

- ``torchvision``: ResNet, ResNeXt and Wide ResNet, for MMPretrain's networks
  of these names. (``TorchVisionClassifier`` loads torchvision's files of any
  network without conversion.)
- ``timm``: DeiT and ViT with a class token, from timm or Facebook, for
  MMPretrain's ``VisionTransformer`` and, with a distillation token,
  ``DistilledVisionTransformer``. (``TimmClassifier`` loads timm's files of
  any network without conversion.)
- ``crd``: CIFAR networks of the CRD repository and of code that is based on
  it, such as MTKD-RL's published code: ResNet, WRN, VGG, MobileNetV2,
  ShuffleNetV2 and RegNets, for the ``Cifar...`` backbones of this project. The
  network is detected from the names of its weights.

With ``--config`` the result is first loaded into the model of that config, to
check that all weights fit.
"""

from __future__ import annotations

import argparse
import re

from torch import Tensor

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from mmkd_rl.teachers.loading import (
    build_network,
    load_model_config,
    load_weights,
    read_checkpoint,
)
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.cli import clear_errors

# (pattern of a complete name, replacement); the first match is applied.
Rules = tuple[tuple[str, str], ...]
_END = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_HEAD: Rules = ((rf'(?:fc|linear)\.{_END}', r'head.fc.\1'), )

TORCHVISION: Rules = (
    (rf'((?:conv|bn)1\.{_END})', r'backbone.\1'),
    (rf'(layer[1-4]\.\d+\.(?:(?:conv|bn)\d|downsample\.[01])\.{_END})',
     r'backbone.\1'),
    *_HEAD,
)

TIMM: Rules = (
    (r'((?:cls|dist)_token|pos_embed)', r'backbone.\1'),
    (r'patch_embed\.proj\.(weight|bias)',
     r'backbone.patch_embed.projection.\1'),
    (r'blocks\.(\d+)\.norm([12])\.(weight|bias)',
     r'backbone.layers.\1.ln\2.\3'),
    (r'blocks\.(\d+)\.attn\.(qkv|proj)\.(weight|bias)',
     r'backbone.layers.\1.attn.\2.\3'),
    (r'blocks\.(\d+)\.mlp\.fc1\.(weight|bias)',
     r'backbone.layers.\1.ffn.layers.0.0.\2'),
    (r'blocks\.(\d+)\.mlp\.fc2\.(weight|bias)',
     r'backbone.layers.\1.ffn.layers.1.\2'),
    (r'norm\.(weight|bias)', r'backbone.ln1.\1'),
    (r'(head(?:_dist)?)\.(weight|bias)', r'head.layers.\1.\2'),
)

_STEM_AND_HEAD: Rules = ((rf'((?:conv|bn)[12]\.{_END})', r'backbone.\1'),
                         *_HEAD)

# family: (pattern of a name that only this family has, rules)
CRD: dict[str, tuple[str, Rules]] = {
    'wrn': (r'block1\.layer\.0\.bn1\.weight', (
        (rf'block(\d)\.layer\.(\d+)\.((?:conv|bn)\d\.{_END})',
         r'backbone.layer\1.\2.\3'),
        (r'block(\d)\.layer\.(\d+)\.convShortcut\.weight',
         r'backbone.layer\1.\2.downsample.weight'),
        *_STEM_AND_HEAD,
    )),
    'shufflenetv2': (r'layer1\.0\.conv5\.weight', (
        *((rf'(layer\d\.0)\.{old}\.{_END}', rf'backbone.\1.{new}.\2')
          for old, new in (
              ('conv1', 'branch1.0'), ('bn1', 'branch1.1'),
              ('conv2', 'branch1.2'), ('bn2', 'branch1.3'),
              ('conv3', 'branch2.0'), ('bn3', 'branch2.1'),
              ('conv4', 'branch2.3'), ('bn4', 'branch2.4'),
              ('conv5', 'branch2.5'), ('bn5', 'branch2.6'))),
        *((rf'(layer\d\.[1-9]\d*)\.{old}\.{_END}', rf'backbone.\1.{new}.\2')
          for old, new in (
              ('conv1', 'branch2.0'), ('bn1', 'branch2.1'),
              ('conv2', 'branch2.3'), ('bn2', 'branch2.4'),
              ('conv3', 'branch2.5'), ('bn3', 'branch2.6'))),
        *_STEM_AND_HEAD,
    )),
    'regnet': (r'layer1\.0\.conv3\.weight', (
        (rf'(layer\d\.\d+\.(?:conv|bn)\d\.{_END})', r'backbone.\1'),
        (rf'(layer\d\.\d+)\.shortcut\.([01])\.{_END}',
         r'backbone.\1.downsample.\2.\3'),
        (r'(layer\d\.\d+)\.se\.se([12])\.(weight|bias)',
         r'backbone.\1.se.fc\2.\3'),
        *_STEM_AND_HEAD,
    )),
    'resnet': (r'layer1\.0\.conv2\.weight', (
        (rf'(layer[1-3]\.\d+\.(?:(?:conv|bn)\d|downsample\.[01])\.{_END})',
         r'backbone.\1'),
        *_STEM_AND_HEAD,
    )),
    'mobilenetv2': (r'blocks\.0\.0\.conv\.0\.weight', (
        # The seven groups of blocks are four stages in this project.
        *((rf'blocks\.{old}\.{j}\.conv\.{k}\.{_END}',
           rf'backbone.layer{stage}.{first + j}.{new}.\1')
          for old, stage, first, depth in ((0, 1, 0, 1), (1, 1, 1, 2),
                                           (2, 2, 0, 3), (3, 3, 0, 4),
                                           (4, 3, 4, 3), (5, 4, 0, 3),
                                           (6, 4, 3, 1))
          for j in range(depth)
          for k, new in ((0, 'conv1'), (1, 'bn1'), (3, 'conv2'), (4, 'bn2'),
                         (6, 'conv3'), (7, 'bn3'))),
        (rf'conv([12])\.0\.{_END}', r'backbone.conv\1.\2'),
        (rf'conv([12])\.1\.{_END}', r'backbone.bn\1.\2'),
        (r'classifier\.(?:0\.)?(weight|bias)', r'head.fc.\1'),
    )),
    'vgg': (r'block0\.0\.weight', (
        # Blocks repeat conv, bn, relu; the third has no weights.
        *((rf'block{i}\.{3 * j + k}\.{_END}',
           rf'backbone.layer{i + 1}.{j}.{new}.\1')
          for i in range(5) for j in range(4)
          for k, new in ((0, 'conv'), (1, 'bn'))),
        (r'classifier\.(weight|bias)', r'head.fc.\1'),
    )),
}

FORMATS = ('torchvision', 'timm', 'crd')


def convert(weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename weights to the names in MMPretrain's or this project's networks.

    Args:
        weights: Weights of a complete classifier by name.
        source: Format of the names, one of ``FORMATS``.

    Raises:
        ValueError: Unknown format, or a name that the format does not have.
    """
    if source == 'torchvision':
        return rename(weights, TORCHVISION,
                      "torchvision's ResNet, ResNeXt and Wide ResNet")
    if source == 'timm':
        return rename(weights, TIMM, "timm's DeiT and ViT with a class token")
    if source == 'crd':
        for family, (mark, rules) in CRD.items():
            if any(re.fullmatch(mark, name) for name in weights):
                return rename(weights, rules, f"the CRD repository's {family}")
        raise ValueError("none of the CRD repository's networks "
                         f'({", ".join(sorted(CRD))}) has these names: '
                         f'{_some(weights)}')
    raise ValueError(f'--from must be one of {FORMATS}, got {source!r}')


def rename(weights: dict[str, Tensor], rules: Rules,
           whose: str) -> dict[str, Tensor]:
    """Apply ``rules`` to every name.

    Args:
        weights: Weights by name.
        rules: See ``Rules``.
        whose: Networks that the rules are for, for the message.

    Raises:
        ValueError: No rule matches a name.
    """
    renamed = {}
    unknown = []
    for name, tensor in weights.items():
        for pattern, new in rules:
            if match := re.fullmatch(pattern, name):
                renamed[match.expand(new)] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f'{len(unknown)} of {len(weights)} weights are not '
                         f'of {whose}: {_some(unknown)}')
    return renamed


def _some(names) -> str:
    names = list(names)
    return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='file or address of the checkpoint')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--from',
        dest='source_format',
        required=True,
        choices=FORMATS,
        help='library whose names the weights have')
    parser.add_argument(
        '--config',
        help='config (or package::path) into whose model the weights must fit')
    return parser.parse_args()


def main() -> None:
    """Convert, check and write the weights."""
    args = parse_args()
    with clear_errors():
        checkpoint_io.check_out(args.out)
        weights = convert(read_checkpoint(args.source, 'SOURCE'),
                          args.source_format)
        if args.config is not None:
            cfg, scope = load_model_config(args.config, '--config')
            load_weights(
                build_network(cfg, scope, '--config'), weights, args.source,
                'SOURCE')
        checkpoint_io.save(
            dict(
                state_dict=weights,
                meta=dict(converted_from=args.source_format)), args.out)
    fits = f', fits {args.config}' if args.config else ''
    print(f'{args.out}: {len(weights)} tensors{fits}')


if __name__ == '__main__':
    main()
