"""Backbones and wrappers for the tests of Knowledge Flow."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkd_rl.flow import KnowledgeFlow, flow_of
from mmkd_rl.registry import MODELS

CIFAR = dict(type='mmkd_rl.CifarResNet', depth=8)
RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=16,
              base_channels=16)
#: Only the paper's losses, and 12 of 16 iterations with teachers; does not
#: depend on the defaults.
HOOK = dict(type='mmkd_rl.KnowledgeFlowHook', interval=1, threshold=0,
            withdraw_from=.5, independent_at=.75, handover_weight=0)


def teacher(name: str = 'a', config: dict | None = None, **kwargs) -> dict:
    """Config of an untrained teacher."""
    return dict(name=name, config=config or CIFAR, checkpoint='untrained',
                **kwargs)


def build(student: dict | None = None, teachers: list | None = None,
          strength: float = 1., **kwargs) -> nn.Module:
    """Build a KnowledgeFlowBackbone."""
    backbone = MODELS.build(dict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=student or CIFAR,
        teachers=teachers or [teacher()], **kwargs))
    flow_of(backbone).strength = strength
    return backbone


def roots(flow: KnowledgeFlow) -> list[nn.Module]:
    """Networks of the teachers, to which the paths of links are relative."""
    return [teacher.root for teacher in flow.pool]


def scalars(folder: Path) -> list[dict]:
    """The lines that a run has logged."""
    path, = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def images_of(*sides: int) -> dict[int, Tensor]:
    """Two random images of each side."""
    return {side: torch.randn(2, 3, side, side,
                              generator=torch.Generator().manual_seed(0))
            for side in sides}


def tensors(output) -> list[Tensor]:
    """All tensors in a backbone's output."""
    if isinstance(output, Tensor):
        return [output]
    return [t for part in output for t in tensors(part)]


def step(backbone: nn.Module, images: Tensor, seed: int = 0) -> list[Tensor]:
    """Run forward and backward pass in training; returns the outputs."""
    torch.manual_seed(seed)
    outputs = tensors(backbone(images))
    generator = torch.Generator().manual_seed(1)
    sum((t * torch.randn(t.shape, generator=generator).to(t.dtype)).sum()
        for t in outputs).backward()
    return outputs
