"""Knowledge Flow's tables (Liu, Peng and Schwing, ICLR 2019) as records.

The paper prints test errors; here are accuracies, 100 minus them, in %, means
of three runs. Tables 3 to 6 and the ablations of Sec. 7.4 to 7.6 on a
supervised task; and two of this project, of minutes, without numbers. Their
"students" are tasks: no two have the same network and data.
"""

from __future__ import annotations

from paper_tables.cells import Cell, Table

_PAPER = 'Knowledge Flow (ICLR 2019)'
_BIG = ('paper', 'tiny')
_SMALL = ('short', 'tiny')
_ERRORS = 'The paper prints errors; here 100 minus them.'


def _cell(task: str, method: str, title: str, config: str,
          error: float | None = None, extra: bool = False) -> Cell:
    mean = None if error is None else round(100 - error, 2)
    return Cell(task, method, title, f'knowledge_flow/{config}.py', mean,
                extra=extra)


def _table3() -> Table:
    net, cells = 'table3/{}densenet100-24_300e_{}', []
    for task, other, letters, errors in (
            ('cifar10', 'cifar100', 'C100', (4.44, 4.27, 4.58, 3.88)),
            ('cifar100', 'cifar10', 'C10', (21.64, 20.83, 21.02, 20.78))):
        alone, first, second, ours = errors
        tuned = net.format('finetune_', task)
        cells += [
            _cell(task, 'baseline', 'Baseline', net.format('', task), alone),
            _cell(task, f'finetune-{other}', f'Fine-tune from {letters}',
                  f'{tuned}_from-{other}', first),
            _cell(task, 'finetune-svhn', 'Fine-tune from SVHN',
                  f'{tuned}_from-svhn', second),
            _cell(task, 'kf', 'Ours (both)', net.format('kf_', task), ours),
        ]
    return Table('kf-table3', 'teachers of other tasks', f'{_PAPER}, Table 3',
                 'CIFAR', tuple(cells), dict(cifar10='C10', cifar100='C100'),
                 'cifar10', _ERRORS, _BIG, as_is=True)


def _table4() -> Table:
    cells = []
    for task, net, errors in (
            ('mnist', 'mlp-800_60e_mnist', (1.46, .74, .73)),
            ('mnist-no3', 'mlp-800_60e_mnist-no3', (11.06, 2.06, 1.05)),
            ('cifar100', 'convnet-64_150e_cifar100', (31.87, 30.28, 30.07)),
            ('imagenet', 'resnet18_100e_imagenet', (30.24, 30.04, 29.05))):
        cells += _against_kd(task, 'table4', net, errors,
                             together=task.startswith('mnist'))
    alone = cells[-3]
    cells[-3] = Cell(alone.student, alone.method, alone.title,
                     'imagenet/baseline/resnet18_100e_imagenet.py', alone.mean)
    return Table(
        'kf-table4', 'a smaller network of the same task',
        f'{_PAPER}, Table 4', 'MNIST, CIFAR-100, ImageNet', tuple(cells),
        dict(mnist='MNIST', cifar100='C100', imagenet='ImageNet')
        | {'mnist-no3': "MNIST w/o digit '3'"}, 'mnist', _ERRORS, _BIG,
        as_is=True)


def _against_kd(task: str, folder: str, net: str,
                errors: tuple = (None, None, None),
                together: bool = True) -> list[Cell]:
    """Alone, KD, ours, and the last two together."""
    cells = [
        _cell(task, 'baseline', 'Student alone', f'{folder}/{net}', errors[0]),
        _cell(task, 'kd', 'KD', f'{folder}/kd_{net}', errors[1]),
        _cell(task, 'kf', 'Ours', f'{folder}/kf_{net}', errors[2]),
    ]
    if together:
        cells.append(_cell(task, 'kfkd', "Ours with KD (not the paper's)",
                           f'{folder}/kfkd_{net}', extra=folder == 'table4'))
    return cells


def _table5() -> Table:
    task, net = 'emnist', 'mlp-256_40e_emnist-letters'
    cells = (
        _cell(task, 'finetune-digits', 'Fine-tune from EMNIST digits',
              f'table5/finetune_{net}_from-digits', 9.04),
        _cell(task, 'baseline', 'Baseline', f'table5/{net}', 9.20),
        _cell(task, 'kf-letters', 'Ours (EMNIST letters)',
              f'table5/kf_{net}_from-letters', 7.13),
        _cell(task, 'kf-half', 'Ours (EMNIST half letters)',
              f'table5/kf_{net}_from-half-letters', 8.13),
        _cell(task, 'kf-digits', 'Ours (EMNIST digit)',
              f'table5/kf_{net}_from-digits', 8.11),
    )
    return Table('kf-table5', 'experts, half an expert and others',
                 f'{_PAPER}, Table 5', 'EMNIST letters', cells,
                 dict(emnist='EMNIST letters'), task, _ERRORS, _BIG,
                 as_is=True)


def _table6() -> Table:
    task, net = 'stl10', 'convnet-stl_200e_stl10'
    cells = (
        _cell(task, 'baseline', 'Baseline', f'table6/{net}', 25.50),
        _cell(task, 'finetune-cifar10', 'Fine-tune from C10',
              f'table6/finetune_{net}_from-cifar10', 14.32),
        _cell(task, 'finetune-cifar100', 'Fine-tune from C100',
              f'table6/finetune_{net}_from-cifar100', 14.38),
        _cell(task, 'kf-cifar100', 'Ours (C100)',
              f'table6/kf_{net}_from-cifar100', 12.35),
        _cell(task, 'kf-both', 'Ours (C10, C100)',
              f'table6/kf_{net}_from-both', 11.09),
    )
    return Table('kf-table6', 'few images', f'{_PAPER}, Table 6', 'STL-10',
                 cells, dict(stl10='STL-10'), task, _ERRORS, _BIG, as_is=True)


def _ablations() -> Table:
    task, net = 'cifar10', 'kf_densenet100-24_300e_cifar10'
    cells = (
        _cell(task, 'baseline', 'Baseline (Table 3)',
              'table3/densenet100-24_300e_cifar10', 4.44),
        _cell(task, 'kf', 'Ours (Table 3)', f'table3/{net}', 3.88),
        _cell(task, 'untrained', 'untrained teachers (7.4.1)',
              f'ablations/{net}_untrained'),
        _cell(task, 'no-kl', 'without KL term (7.4.2)',
              f'ablations/{net}_no-kl'),
        _cell(task, 'other-teachers', 'teachers of another network (7.5)',
              f'ablations/{net}_other-teachers'),
        _cell(task, 'average-old', 'average theta_old (7.6)',
              f'ablations/{net}_average-old'),
    )
    return Table('kf-ablations', 'ablations', f'{_PAPER}, Sec. 7.4 to 7.6',
                 'CIFAR-10', cells, dict(cifar10='C10'), task,
                 "The paper's ablations are of reinforcement learning; here "
                 'the same is changed in Table 3 (a). ' + _ERRORS, _BIG,
                 as_is=True)


def _halves() -> Table:
    task, net = 'second-half', 'resnet14_12e_second-half'
    folder = 'cifar100_halves'
    cells = (
        _cell(task, 'baseline', 'alone', f'{folder}/{net}'),
        _cell(task, 'finetune-classes', 'fine-tuned from classes 0-49',
              f'{folder}/finetune_{net}_from-classes'),
        _cell(task, 'finetune-rotations', 'fine-tuned from rotations',
              f'{folder}/finetune_{net}_from-rotations'),
        _cell(task, 'kf-classes', 'flow from classes 0-49',
              f'{folder}/kf_{net}_from-classes'),
        _cell(task, 'kf-rotations', 'flow from rotations',
              f'{folder}/kf_{net}_from-rotations'),
        _cell(task, 'kf-both', 'flow from both', f'{folder}/kf_{net}_from-both'
              ),
        _cell(task, 'kf-untrained', 'flow from both, untrained',
              f'{folder}/kf_{net}_untrained'),
        _cell(task, 'kf-noise', 'flow from a poor teacher',
              f'{folder}/kf_{net}_from-noise'),
        _cell(task, 'kf-good-and-poor', 'flow from a good and a poor one',
              f'{folder}/kf_{net}_good-and-poor'),
        _cell(task, 'kf-paper', "flow from both, the paper's losses only",
              f'{folder}/kf_{net}_paper'),
        _cell(task, 'kf-no-kl', 'flow from both, without KL term',
              f'{folder}/kf_{net}_no-kl'),
    )
    return Table(
        'kf-halves', 'a half of CIFAR-100 from the other half',
        'After Knowledge Flow (ICLR 2019), Sec. 4.2 and 7.4',
        'CIFAR-100, classes 50 to 99, a fifth of their training images',
        cells, {task: 'ResNet-14 on classes 50 to 99'}, task,
        'Teachers and student are ResNet-14, so that the student can be '
        "fine-tuned from a teacher. Teachers saw the other half's images "
        'only: with their classes, turned by quarters (rotations), or with '
        'labels drawn by lot (poor). "Flow" ends with the student alone.',
        _SMALL, as_is=True,
        seconds={c.method: 200 if 'kf' in c.method else 130 for c in cells}
        | {f'resnet14_5e_first-half{task}': 250
           for task in ('', '_rotations', '_noise')})


def _digits() -> Table:
    net = 'mlp-800_12e_digits'
    cells = _against_kd('digits', 'digits', net) + \
        _against_kd('digits-no3', 'digits', f'{net}-no3')
    return Table(
        'kf-digits', 'with and without digit 3',
        'After Knowledge Flow (ICLR 2019), Table 4', 'the embedded digits',
        tuple(cells),
        {'digits': 'Digits', 'digits-no3': "Digits w/o '3'"}, 'digits',
        'MLP of 800 and 800 units from one of 1200 and 1200. All are tested '
        'on all digits, of which a tenth are 3; the teacher has seen them. '
        'The paper does not say how a student without a 3 in its targets '
        'comes to name one; KD tells it.', _SMALL, as_is=True,
        seconds={'mlp-1200_12e_digits': 130, 'baseline': 60, 'kd': 80,
                 'kf': 120, 'kfkd': 130})


FLOW_TABLES = (_table3(), _table4(), _table5(), _table6(), _ablations(),
               _halves(), _digits())
