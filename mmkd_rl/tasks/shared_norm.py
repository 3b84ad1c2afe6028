"""Batch norm in a detector's head through which maps of all levels go."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

#: The stacks of layers of MMDetection's dense heads. Where each level has
#: layers or norms of its own (RTMDet, YOLOX, RetinaSepBNHead), their members
#: are lists or sequences.
_STACKS = ('cls_convs', 'reg_convs')


def shares_batch_norm(model: nn.Module) -> bool:
    """Whether the dense head of a detector has batch norm that maps of
    several levels share."""
    for name in ('bbox_head', 'rpn_head'):
        head = getattr(model, name, None)
        strides = getattr(getattr(head, 'prior_generator', None), 'strides',
                          ())
        layers = [layer for stack in _STACKS
                  for layer in getattr(head, stack, ())
                  if not isinstance(layer, (nn.ModuleList, nn.Sequential))]
        if len(strides) > 1 and any(isinstance(m, _BatchNorm)
                                    for layer in layers
                                    for m in layer.modules()):
            return True
    return False


def warn_of_shared_batch_norm(model: nn.Module) -> None:
    """Log a warning where a student's head shares batch norm: each level is
    normalised by itself in training, and all alike in evaluation. What teaches
    the features of single levels moves their statistics apart, which lowers
    AP; measured in docs/results/detection.md."""
    if shares_batch_norm(model):
        print_log(
            "the levels of the student's head share batch norm. Its running "
            'statistics fit none of them, and distilled features make that '
            'worse: the result can be worse than without teachers. Better '
            "take norm_cfg=dict(type='GN', num_groups=32) in the head, or a "
            'head with a batch norm for each level',
            'current', logging.WARNING)
