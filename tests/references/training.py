"""A tiny training whose every number is fixed, for reference losses.

Initial weights follow from each weight's name within its own network, images
and labels from their index, so that neither the order in which the parts are
built nor the state of a random generator at that time matters. Two states of
the code that compute the same therefore log the same.

This module uses nothing of ``tests`` and of ``mmkd_rl`` only what configs
name, so that it can also train with another commit's package, see
``compare.py``. Run as a script it prints the values of some cases as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModule
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn

import mmkd_rl  # noqa: F401  (registers the scope)
from mmkd_rl.registry import DATASETS, MODELS

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import CASES
else:
    from .cases import CASES

CLASSES, IMAGES, ITERATIONS = 5, 40, 20


@MODELS.register_module(force=True)
class ReferenceBackbone(BaseModule):
    """[B, 3, 8, 8] -> maps [B, width, 8 / stride, 8 / stride]."""

    def __init__(self, width: int, stride: int = 4, init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6),
            nn.ReLU())
        self.stage = nn.Sequential(
            nn.Conv2d(6, width, 3, stride // 2, 1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.stage(self.stem(x)), )


@DATASETS.register_module(force=True)
class ReferenceImages(torch.utils.data.Dataset):
    """Images that follow from their index; the label is index modulo C."""

    metainfo: dict = {}

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        label = index % CLASSES
        image = _normal(f'image {index}', (3, 8, 8)) + 2 * _normal(
            f'class {label}', (3, 8, 8))
        return dict(
            inputs=image.to(torch.get_default_dtype()),
            data_samples=DataSample().set_gt_label(label))


def classifier(width: int, stride: int = 4, classes: int = CLASSES) -> dict:
    """Config of a classifier."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmkd_rl.ReferenceBackbone', width=width, stride=stride),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=classes,
            in_channels=width,
            loss=dict(type='mmpretrain.CrossEntropyLoss')),
        data_preprocessor=dict(type='mmkd_rl.ReferencePreprocessor'))


@MODELS.register_module(force=True)
class ReferencePreprocessor(BaseDataPreprocessor):
    """Leaves images in the precision that they come in.

    Args:
        **kwargs: What MMPretrain adds to any preprocessor's config.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__()


def teachers() -> list[dict]:
    """Three: like the student, wider, of twice the resolution."""
    return [
        dict(name='like', config=classifier(8), checkpoint='untrained'),
        dict(name='wide', config=classifier(12), checkpoint='untrained'),
        dict(name='fine', config=classifier(8, 2), checkpoint='untrained')
    ]


def model_config(case: dict) -> dict:
    """The model of a case, see ``cases.py``."""
    student = classifier(8)
    pool = teachers()
    own = case.get('flow')
    if own is not None:
        backbone = dict(
            type='mmkd_rl.KnowledgeFlowBackbone',
            student=student['backbone'],
            teachers=pool if own == 'own' else 'distiller',
            probe_size=8)
        student = dict(student, backbone=backbone)
        if own == 'own':
            return student
    for teacher, class_map in zip(pool, case.get('class_maps', ())):
        if class_map is not None:
            teacher['class_map'] = class_map
            head = teacher['config']['head']
            head['num_classes'] = max(class_map) + 1
    return dict(
        type='mmkd_rl.MultiTeacherDistiller',
        student=student,
        teachers=pool,
        probe_size=8,
        **case.get('model', {}))


# ------------------------------------------------------------ fixed numbers


def _normal(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def fill(role: str, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Give each tensor the values that follow from its name.

    Args:
        role: Of the network that they are of.
        tensors: With their names within it.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        value = _normal(f'{role} {name}', tuple(tensor.shape))
        if name.endswith('running_var'):
            value = 1 + value.abs() / 4
        elif tensor.ndim > 1:
            value = value * 1.5 / math.sqrt(tensor[0].numel())
        elif name.endswith('weight'):
            value = 1 + value / 10
        else:
            value = value / 10
        tensor.copy_(value)


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(module.named_parameters(), module.named_buffers())


class Parts:
    """The parts of a model, in this layout of the code or an earlier one.

    Up to 0.1's first layout the distiller was a module around the student;
    since then it is a child of the student's own model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.distillation = getattr(model, 'distillation', None)
        self.wraps = hasattr(model, 'student')
        self.student = model.student if self.wraps else model
        if self.wraps:
            self.distillation = model

    def student_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Of the student alone, and of Knowledge Flow in it."""
        return ((n, t) for n, t in _named(self.student)
                if not n.startswith('distillation.')
                and not n.endswith('knowledge_flow.active'))

    def projectors(self) -> list[nn.Module]:
        """One a teacher."""
        if self.wraps:
            return list(self.model.projectors)
        return [
            levels[0] for term in self.distillation.terms
            for levels in getattr(term, 'projectors', ())
        ]

    def weights(self) -> tuple[Tensor, Tensor]:
        """Of the last batch, logits and features, [B, M] each."""
        last = self.model.last_weights if self.wraps else \
            self.distillation.last_step.weights
        return last.logit, last.feature

    def teacher_networks(self) -> list[tuple[str, nn.Module]]:
        """Names and networks, of a pool or of Knowledge Flow."""
        if self.distillation is not None:
            return [(t.name, t.model) for t in self.distillation.teachers]
        from mmkd_rl.flow import flow_of
        flow = flow_of(self.model)
        # Older heads, see compare.py, have another pool for it.
        pool = flow._source if hasattr(flow, '_source') else flow.pool
        return [(t.name, t.network if hasattr(t, 'network') else t.model)
                for t in pool._teachers]


def fix_numbers(model: nn.Module) -> None:
    """Fill all networks, the agent's included."""
    parts = Parts(model)
    fill('student', parts.student_tensors())
    for name, network in parts.teacher_networks():
        backbone = getattr(network, 'backbone', network)
        fill(f'teacher {name}', _named(backbone))
        if backbone is not network:
            fill(f'teacher {name} head', _named(network.head))
    if parts.distillation is None:
        return
    for index, projector in enumerate(parts.projectors()):
        fill(f'projector {index}', _named(projector))
    strategy = parts.distillation.weighting
    fill('weighting', strategy.named_parameters())
    learner = getattr(strategy, 'learner', None)
    if learner is None:
        return
    role = 'policy' if hasattr(learner, 'policy') else 'networks'
    fill(role, ((n, p) for n, p in getattr(
        learner, role).named_parameters() if n != 'balance'))
    if hasattr(learner, 'updater'):
        extra = learner.updater.extra
        fill('extra', ((n, p) for n, p in extra.named_parameters()
                       if n != 'log_kappa'))


# ----------------------------------------------------------------- training


class FixNumbers(Hook):
    """Fills the networks before any other hook copies or runs them, so that
    nothing that was drawn before matters."""

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        """Fill."""
        fix_numbers(runner.model)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch=None) -> None:
        """Seed what is drawn in training, behind what the data loader draws
        when it starts."""
        if runner.iter == 0:
            torch.manual_seed(1)
            strategy = getattr(Parts(runner.model).distillation, 'weighting',
                               None)
            random = getattr(getattr(strategy, 'learner', None), 'random',
                             None)
            if random is not None:
                # Since learners draw from generators of their own.
                random.seed(1)


class Collect(Hook):
    """Notes losses, weights and all that is logged beside them."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.final: dict[str, float] = {}

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch=None, outputs=None) -> None:
        """One row."""
        row = {k: float(v) for k, v in outputs.items() if 'loss' in k}
        parts = Parts(runner.model)
        if parts.distillation is not None:
            for kind, rows_BM in zip(('logit', 'feature'), parts.weights()):
                for m, column in enumerate(rows_BM.double().T):
                    row[f'weight_{kind}/{m}'] = float(column.mean())
                    row[f'weight_{kind}/{m}/first'] = float(column[0])
        for name, buffer in runner.message_hub.log_scalars.items():
            group, _, own = name.removeprefix('train/').partition('/')
            if group in ('agent', 'meta', 'flow'):
                row[f'{group}/{own}'] = float(buffer.current())
        self.rows.append(row)

    def after_train(self, runner: Runner) -> None:
        """A number of the trained student that each weight moves."""
        self.final = {
            name: float((tensor.double() * _normal(
                f'probe {name}', tuple(tensor.shape))).sum())
            for name, tensor in Parts(runner.model).student_tensors()
            if tensor.is_floating_point() and 'knowledge_flow' not in name
        }


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Everything in one precision and on one thread.

    Losses, agent and history compute in float32 where they are given half
    precision; of float64 they would make float32, too, in which processors
    differ. So in float64 ``Tensor.float`` does nothing here.
    """
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    to_float = Tensor.float

    def float_(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else to_float(
            tensor).to(dtype)

    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, before)
        stack.callback(torch.set_num_threads, threads)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(1)
        if dtype == torch.float64:
            stack.enter_context(mock.patch.object(Tensor, 'float', float_))
        yield


def run(name: str, dtype: torch.dtype = torch.float64) -> dict:
    """Train one case.

    Returns:
        ``rows``, of every iteration all losses, weights and scalars, and
        ``final``, a projection of each of the student's tensors.
    """
    case = CASES[name]
    with precision(dtype), tempfile.TemporaryDirectory() as folder:
        cfg = dict(
            default_scope='mmkd_rl',
            work_dir=folder,
            experiment_name=f'{name}-{next(_counter)}',
            model=model_config(case),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                dataset=dict(type='mmkd_rl.ReferenceImages'),
                sampler=dict(type='InfiniteSampler', shuffle=False),
                collate_fn=dict(type='default_collate')),
            train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
            optim_wrapper=dict(
                optimizer=dict(
                    type='SGD', lr=.05, momentum=.9, weight_decay=1e-3)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=-1)),
            custom_hooks=case.get('hooks', []),
            log_level='ERROR')
        with mock.patch.object(Runner, '_log_env'):
            runner = Runner.from_cfg(Config(cfg, format_python_code=False))
        collect = Collect()
        runner.register_hook(FixNumbers())
        runner.register_hook(collect)
        runner.train()
    return dict(rows=collect.rows, final=collect.final)


_counter = itertools.count()


def main() -> None:
    """Print cases as JSON, floats written so that no bit is lost."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--cases', nargs='*', default=list(CASES))
    parser.add_argument('--dtype', default='float32',
                        choices=['float32', 'float64'])
    parser.add_argument('--out', required=True, help='JSON file to write')
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    values = {name: run(name, dtype) for name in args.cases}
    Path(args.out).write_text(json.dumps(values))


if __name__ == '__main__':
    main()
