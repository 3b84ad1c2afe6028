"""A tiny training with fixed numbers, for reference losses.

Initial weights are computed from the weight's name in its network, images and
labels from their index. They depend neither on the order in which parts are
built nor on random generators, so that two versions of the code with the same
computations log the same numbers.

This module imports nothing of ``tests``, and uses only those parts of
``mmkd_rl`` that configs name, so that it can train with the package of another
commit, see ``compare.py``. As a script it prints values of cases as JSON.
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
    """Images that depend only on their index; the label is index modulo C."""

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
    """Preprocessor that does not change the precision of images.

    Args:
        **kwargs: Options that MMPretrain adds to any preprocessor's config.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__()


def teachers() -> list[dict]:
    """Configs of three teachers: one like the student, a wider one, and one
    with twice the resolution."""
    return [
        dict(name='like', config=classifier(8), checkpoint='untrained'),
        dict(name='wide', config=classifier(12), checkpoint='untrained'),
        dict(name='fine', config=classifier(8, 2), checkpoint='untrained')
    ]


def model_config(case: dict) -> dict:
    """Config of the model of a case, see ``cases.py``."""
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
    """Fill each tensor with values that are computed from its name.

    Args:
        role: Role of the network with the tensors.
        tensors: Names in the network, and tensors.
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
    """Parts of a model, in the current layout of the code or an earlier one.

    In the first layout of version 0.1 the distiller was a module around the
    student; since then it is a child of the student's model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.distillation = getattr(model, 'distillation', None)
        self.wraps = hasattr(model, 'student')
        self.student = model.student if self.wraps else model
        if self.wraps:
            self.distillation = model

    def student_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of the student, and of Knowledge Flow in it."""
        return ((n, t) for n, t in _named(self.student)
                if not n.startswith('distillation.')
                and not n.endswith('knowledge_flow.active'))

    def projectors(self) -> list[nn.Module]:
        """Projectors, one for each teacher."""
        if self.wraps:
            return list(self.model.projectors)
        return [
            levels[0] for term in self.distillation.terms
            for levels in getattr(term, 'projectors', ())
        ]

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights of the last batch for logits and features, [B, M] each."""
        last = self.model.last_weights if self.wraps else \
            self.distillation.last_step.weights
        return last.logit, last.feature

    def teacher_networks(self) -> list[tuple[str, nn.Module]]:
        """Names and networks of the teachers of a pool or Knowledge Flow."""
        if self.distillation is not None:
            return [(t.name, t.model) for t in self.distillation.teachers]
        from mmkd_rl.flow import flow_of
        flow = flow_of(self.model)
        # Older commits, see compare.py, have another pool for Knowledge Flow.
        pool = flow._source if hasattr(flow, '_source') else flow.pool
        return [(t.name, t.network if hasattr(t, 'network') else t.model)
                for t in pool._teachers]


def fix_numbers(model: nn.Module) -> None:
    """Fill all networks, including the agent."""
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
    """Hook that fills the networks before any other hook copies or runs them,
    so that their random initial values have no effect."""

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        """Fill the networks."""
        fix_numbers(runner.model)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch=None) -> None:
        """Seed the generators after the data loader has drawn from them at its
        start."""
        if runner.iter == 0:
            torch.manual_seed(1)
            strategy = getattr(Parts(runner.model).distillation, 'weighting',
                               None)
            random = getattr(getattr(strategy, 'learner', None), 'random',
                             None)
            if random is not None:
                # In newer versions learners have generators of their own.
                random.seed(1)


class Collect(Hook):
    """Hook that records losses, weights and all other logged scalars."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.final: dict[str, float] = {}

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch=None, outputs=None) -> None:
        """Record the row of an iteration."""
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
        """Record a projection of the trained student that depends on each
        weight."""
        self.final = {
            name: float((tensor.double() * _normal(
                f'probe {name}', tuple(tensor.shape))).sum())
            for name, tensor in Parts(runner.model).student_tensors()
            if tensor.is_floating_point() and 'knowledge_flow' not in name
        }


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Context in which everything is computed in one precision and thread.

    Losses, agent and history convert half precision to float32 with
    ``Tensor.float``, which would also convert float64, and results in float32
    differ between processors. In float64 ``Tensor.float`` is therefore
    replaced by a function that does nothing.
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
        ``rows``, all losses, weights and scalars of every iteration, and
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
    """Print cases as JSON; floats are written without loss."""
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
