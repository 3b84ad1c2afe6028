"""Tables of Knowledge Flow (Liu, Peng and Schwing, ICLR 2019) as records.

The paper prints test errors in %, means of three runs; the records have
accuracies, 100 minus the error. Included are Tables 3 to 6, the ablations of
Sec. 7.4 to 7.6 on a supervised task, and two tables of this project, which
take minutes and have no numbers in the paper. The "students" of these tables
are tasks, each with a network and data of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paper_tables.cells import Cell, Table

_PAPER = 'Knowledge Flow (ICLR 2019)'
_BIG = ('paper', 'tiny')
_SMALL = ('short', 'tiny')
_ERRORS = 'The paper prints errors; this table has accuracies, 100 - error.'
#: Our strategy has the hand-over, the paper's has not.
_OURS, _OF_PAPER = 'knowledge_flow', 'knowledge_flow_paper'


def _cell(task: str, method: str, title: str, net: str,
          error: float | None = None, pool: str = '', **kwargs: Any) -> Cell:
    """Cell of a student, with the paper's strategy if it has teachers.

    Args:
        task, method, title, kwargs: See :class:`Cell`.
        net: Name of the student's config in ``configs/knowledge_flow``, or a
            file in another folder of ``configs``.
        error: Test error in the paper, %; ``None`` if it has none.
        pool: Name of the pool, without ``knowledge_flow_``; ``''`` for no
            teachers.
    """
    if pool:
        kwargs.setdefault('strategy', _OF_PAPER)
        kwargs['pool'] = f'knowledge_flow_{pool}'
    return Cell(task, method, title,
                net if '/' in net else f'knowledge_flow/{net}.py',
                None if error is None else round(100 - error, 2), **kwargs)


def _tuned(task: str, method: str, title: str, net: str, source: str,
           error: float | None = None) -> Cell:
    """Cell of a fine-tuned student: its backbone starts from the weights of
    ``source``, a config of the same network for another task."""
    (epochs, ) = re.findall(r'_(\d+)e_', source)
    begin = dict(type='Pretrained', prefix='backbone.',
                 checkpoint=f'work_dirs/{source}/epoch_{epochs}.pth')
    return _cell(task, method, title, net, error, changes={
        f'model.backbone.init_cfg.{k}': v for k, v in begin.items()})


def _of_hook(**options: Any) -> dict[str, Any]:
    """Changed options of the KnowledgeFlowHook, see :attr:`Cell.changes`."""
    return {f'custom_hooks.KnowledgeFlowHook.{k}': v
            for k, v in options.items()}


def _untrained(teachers: int) -> dict[str, Any]:
    """Random weights for the first teachers, see :attr:`Cell.changes`."""
    return {f'model.backbone.teachers.{i}.checkpoint': 'untrained'
            for i in range(teachers)}


def _table3() -> Table:
    net, svhn = 'densenet100-24_300e_', 'densenet100-24_40e_svhn'
    cells = []
    for task, other, letters, errors in (
            ('cifar10', 'cifar100', 'C100', (4.44, 4.27, 4.58, 3.88)),
            ('cifar100', 'cifar10', 'C10', (21.64, 20.83, 21.02, 20.78))):
        alone, first, second, ours = errors
        cells += [
            _cell(task, 'baseline', 'Baseline', net + task, alone),
            _tuned(task, f'finetune-{other}', f'Fine-tune from {letters}',
                   net + task, net + other, first),
            _tuned(task, 'finetune-svhn', 'Fine-tune from SVHN', net + task,
                   svhn, second),
            _cell(task, 'kf', 'Ours (both)', net + task, ours,
                  f'table3:{other},svhn'),
        ]
    return Table('kf-table3', 'teachers of other tasks', f'{_PAPER}, Table 3',
                 'CIFAR', tuple(cells), dict(cifar10='C10', cifar100='C100'),
                 'cifar10', _ERRORS, _BIG, as_is=True)


def _table4() -> Table:
    # Hinton et al.'s temperature for this experiment (2015).
    mnist = {'model.logit_loss.temperature': 20.,
             'model.probe_size': (1, 28, 28)}
    cells = [
        *_against_kd('mnist', 'mlp-800_60e_mnist', 'table4:mlp-1200',
                     (1.46, .74, .73), mnist),
        *_against_kd('mnist-no3', 'mlp-800_60e_mnist-no3', 'table4:mlp-1200',
                     (11.06, 2.06, 1.05), mnist),
        *_against_kd('cifar100', 'convnet-64_150e_cifar100',
                     'table4:convnet-128', (31.87, 30.28, 30.07))[:3],
        *_against_kd('imagenet', 'imagenet/baseline/resnet18_100e_imagenet.py',
                     'table4:resnet50', (30.24, 30.04, 29.05))[:3],
    ]
    return Table(
        'kf-table4', 'larger teachers of the same task',
        f'{_PAPER}, Table 4', 'MNIST, CIFAR-100, ImageNet', tuple(cells),
        dict(mnist='MNIST', cifar100='C100', imagenet='ImageNet')
        | {'mnist-no3': "MNIST w/o digit '3'"}, 'mnist', _ERRORS, _BIG,
        as_is=True)


def _against_kd(task: str, net: str, pool: str,
                errors: tuple = (None, None, None),
                kd: Mapping[str, Any] | None = None,
                strategy: str = _OF_PAPER) -> list[Cell]:
    """Cells of the student alone, with KD, with Knowledge Flow, and with both.

    Args:
        task, net, pool: See :func:`_cell`.
        errors: Test errors of the first three in the paper, %.
        kd: Changed settings of the cells with KD.
        strategy: Strategy of the cells with Knowledge Flow.
    """
    alone, of_kd, ours = errors
    kd = kd or {}
    return [
        _cell(task, 'baseline', 'Student alone', net, alone),
        _cell(task, 'kd', 'KD', net, of_kd, pool, strategy='aver_kd',
              changes=kd),
        _cell(task, 'kf', 'Ours', net, ours, pool, strategy=strategy),
        _cell(task, 'kfkd', "Ours with KD (not the paper's)", net, None, pool,
              strategy=f'aver_kd+{strategy}', changes=kd,
              extra=strategy == _OF_PAPER),
    ]


def _table5() -> Table:
    task, net = 'emnist', 'mlp-256_40e_emnist-letters'
    cells = (
        _tuned(task, 'finetune-digits', 'Fine-tune from EMNIST digits', net,
               'mlp-256_40e_emnist-digits', 9.04),
        _cell(task, 'baseline', 'Baseline', net, 9.20),
        _cell(task, 'kf-letters', 'Ours (EMNIST letters)', net, 7.13,
              'table5:letters'),
        _cell(task, 'kf-half', 'Ours (EMNIST half letters)', net, 8.13,
              'table5:half-letters'),
        _cell(task, 'kf-digits', 'Ours (EMNIST digit)', net, 8.11,
              'table5:digits'),
    )
    return Table('kf-table5', 'expert, half-expert and non-expert teachers',
                 f'{_PAPER}, Table 5', 'EMNIST letters', cells,
                 dict(emnist='EMNIST letters'), task, _ERRORS, _BIG,
                 as_is=True)


def _table6() -> Table:
    task, net = 'stl10', 'convnet-stl_200e_stl10'
    cells = (
        _cell(task, 'baseline', 'Baseline', net, 25.50),
        _tuned(task, 'finetune-cifar10', 'Fine-tune from C10', net,
               'convnet-stl_100e_cifar10', 14.32),
        _tuned(task, 'finetune-cifar100', 'Fine-tune from C100', net,
               'convnet-stl_100e_cifar100', 14.38),
        _cell(task, 'kf-cifar100', 'Ours (C100)', net, 12.35,
              'table6:cifar100'),
        _cell(task, 'kf-both', 'Ours (C10, C100)', net, 11.09,
              'table6:cifar10,cifar100'),
    )
    return Table('kf-table6', 'few training images', f'{_PAPER}, Table 6',
                 'STL-10', cells, dict(stl10='STL-10'), task, _ERRORS, _BIG,
                 as_is=True)


def _ablations() -> Table:
    alone, whole = (c for c in _table3().cells if c.student == 'cifar10'
                    and c.method in ('baseline', 'kf'))

    def changed(method: str, title: str, **change: Any) -> Cell:
        return replace(whole, method=method, title=title, mean=None, **change)

    cells = (
        replace(alone, title='Baseline (Table 3)'),
        replace(whole, title='Ours (Table 3)'),
        changed('untrained', 'untrained teachers (7.4.1)',
                changes=_untrained(2)),
        changed('no-kl', 'without KL term (7.4.2)',
                changes=_of_hook(kl_weight=0.)),
        changed('other-teachers', 'teachers of another network (7.5)',
                pool='knowledge_flow_other'),
        changed('average-old', 'average theta_old (7.6)',
                changes=_of_hook(old='average', old_momentum=.9)),
    )
    return Table('kf-ablations', 'ablations', f'{_PAPER}, Sec. 7.4 to 7.6',
                 'CIFAR-10', cells, dict(cifar10='C10'), 'cifar10',
                 "The paper's ablations are of reinforcement learning; this "
                 'table makes the same changes to Table 3 (a). ' + _ERRORS,
                 _BIG,
                 as_is=True)


def _halves() -> Table:
    task, net = 'second-half', 'resnet14_12e_second-half'
    teacher, both = 'resnet14_5e_first-half', 'classes,rotations'

    def flow(method: str, title: str, teachers: str = both,
             strategy: str = _OURS, **changes: Any) -> Cell:
        return _cell(task, f'kf-{method}', title, net, None,
                     f'halves:{teachers}', strategy=strategy, **changes)

    cells = (
        _cell(task, 'baseline', 'alone', net),
        _tuned(task, 'finetune-classes', 'fine-tuned from classes 0-49', net,
               teacher),
        _tuned(task, 'finetune-rotations', 'fine-tuned from rotations', net,
               f'{teacher}_rotations'),
        flow('classes', 'flow from classes 0-49', 'classes'),
        flow('rotations', 'flow from rotations', 'rotations'),
        flow('both', 'flow from both'),
        flow('untrained', 'flow from both, untrained', changes=_untrained(2)),
        flow('noise', 'flow from a poor teacher', 'noise'),
        flow('good-and-poor', 'flow from a good and a poor teacher',
             'classes,noise'),
        flow('paper', "flow from both, the paper's losses only",
             strategy=_OF_PAPER),
        flow('no-kl', 'flow from both, without KL term',
             changes=_of_hook(kl_weight=0.)),
    )
    return Table(
        'kf-halves', 'teachers of the other half of CIFAR-100',
        'After Knowledge Flow (ICLR 2019), Sec. 4.2 and 7.4',
        'CIFAR-100, classes 50 to 99, a fifth of their training images',
        cells, {task: 'ResNet-14 on classes 50 to 99'}, task,
        'Teachers and student are ResNet-14, so that the student can be '
        'fine-tuned from a teacher. Teachers are trained on images of classes '
        '0 to 49 only: with their classes, with rotations by multiples of 90 '
        'degrees as classes, or with random labels (poor teacher). "Flow" '
        'ends with the student alone.',
        _SMALL, as_is=True,
        seconds={c.method: 200 if 'kf' in c.method else 130 for c in cells}
        | {f'{teacher}{task}': 250 for task in ('', '_rotations', '_noise')})


def _digits() -> Table:
    cells = [
        cell for task in ('digits', 'digits-no3')
        for cell in _against_kd(task, f'mlp-800_12e_{task}', 'digits',
                                kd={'model.probe_size': 32}, strategy=_OURS)]
    return Table(
        'kf-digits', 'student trained with and without digit 3',
        'After Knowledge Flow (ICLR 2019), Table 4', 'the embedded digits',
        tuple(cells),
        {'digits': 'Digits', 'digits-no3': "Digits w/o '3'"}, 'digits',
        'The student is an MLP with two hidden layers of 800 units, the '
        'teacher one with 1200. The test set has all digits, a tenth of them '
        '3; the teacher is trained on all digits. The paper does not say how '
        'a student without the class 3 in its labels learns to predict it; '
        "with KD it learns it from the teacher's logits.", _SMALL, as_is=True,
        seconds={'mlp-1200_12e_digits': 130, 'baseline': 60, 'kd': 80,
                 'kf': 120, 'kfkd': 130})


FLOW_TABLES = (_table3(), _table4(), _table5(), _table6(), _ablations(),
               _halves(), _digits())
