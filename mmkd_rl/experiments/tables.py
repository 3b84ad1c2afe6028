"""The paper's tables as records: what each cell says, and how it is run.

Numbers: MTKD-RL (AAAI 2025), top-1 accuracy in %; CIFAR-100: mean and
standard deviation of three runs, ImageNet: one run. A cell that this project
adds has no number. Knowledge Flow's tables: :mod:`.flow_tables`.
"""

from __future__ import annotations

from mmkd_rl.experiments.cells import Cell, Table, check_names
from mmkd_rl.experiments.flow_tables import FLOW_TABLES


def find_table(name: str) -> Table:
    """A table by its name.

    Raises:
        ValueError: There is none of this name.
    """
    check_names('TABLE', [name], TABLES, 'mmkd_rl')
    return TABLES[name]


# ------------------------------------------------------------------ MTKD-RL

# name: (folder, prefix of the file, the paper's name)
METHODS = {
    'baseline': ('baseline', '', 'Baseline'),
    'aver-kd': ('aver_kd', 'aver-kd_', 'AVER (KD)'),
    'aver': ('aver', 'aver_', 'AVER (KD+FitNet)'),
    'eb-kd': ('eb_kd', 'eb-kd_', 'EB-KD'),
    'amtml-kd': ('amtml_kd', 'amtml-kd_', 'AMTML-KD'),
    'ae-kd': ('ae_kd', 'ae-kd_', 'AEKD'),
    'ca-mkd': ('ca_mkd', 'ca-mkd_', 'CA-MKD'),
    'mmkd': ('mmkd', 'mmkd_', 'MMKD'),
    'mtkd-rl': ('mtkd_rl', 'mtkd-rl_', 'MTKD-RL'),
}
CIFAR_STUDENTS = {
    'regnetx-200mf': 'RegNetX-200MF',
    'mobilenetv2-x1.0': 'MobileNetV2',
    'shufflenetv2-x1.0': 'ShuffleNetV2',
    'resnet56': 'ResNet-56',
}
SHUFFLENET = {'shufflenetv2-x1.0': 'ShuffleNetV2'}
_NO_EB_KD = 'The paper has no row for EB-KD.'
#: Table 6(c) by method: seconds an epoch and peak GB of ShuffleNetV2 on
#: CIFAR-100, one RTX 4090. AVER is both of its methods.
COSTS: dict[str, tuple[float, float]] = {
    'baseline': (29, 2.3),
    'aver-kd': (41, 2.8),
    'aver': (41, 2.8),
    'ca-mkd': (54, 2.9),
    'mtkd-rl': (47, 3.2),
}


def _config(data: str, student: str, method: str, epochs: int,
            variant: str = '') -> str:
    folder, prefix, _ = METHODS[method]
    return f'{data}/{folder}/{prefix}{student}_{epochs}e_{data}{variant}.py'


def _rows(data: str, student: str, epochs: int,
          numbers: dict[str, tuple[float, float | None]]) -> list[Cell]:
    """All methods of one student, and some by other rules."""
    return [
        Cell(student, method, title, _config(data, student, method, epochs),
             *numbers.get(method, (None, None)))
        for method, (_, _, title) in METHODS.items()
    ] + [
        Cell(student, f'mtkd-rl_{variant}', f'MTKD-RL, {title}',
             _config(data, student, 'mtkd-rl', epochs, f'_{variant}'),
             extra=True)
        for variant, title in (('paper-rule', "the paper's rule"),
                               ('official', "published code's choices"))
    ] + [
        Cell(student, 'ca-mkd_official', "CA-MKD, published code's choice",
             _config(data, student, 'ca-mkd', epochs, '_official'),
             extra=True)
    ] * (data == 'cifar100')


def _compared(*values: float | tuple[float, float]) -> dict:
    """Numbers of a block of Tables 1 to 3, which has no EB-KD."""
    names = [name for name in METHODS if name != 'eb-kd']
    pairs = [v if isinstance(v, tuple) else (v, None) for v in values]
    return dict(zip(names, pairs, strict=True))


def _table1() -> Table:
    blocks = {
        'regnetx-200mf':
        _compared((77.38, .23), (78.64, .31), (79.12, .28), (79.46, .45),
                  (79.22, .37), (80.28, .26), (80.15, .41), (80.58, .29)),
        'mobilenetv2-x1.0':
        _compared((69.17, .18), (71.85, .27), (72.67, .26), (72.89, .36),
                  (72.82, .42), (74.16, .32), (74.35, .34), (74.63, .35)),
        'shufflenetv2-x1.0':
        _compared((72.84, .15), (75.77, .18), (76.83, .34), (76.93, .26),
                  (77.08, .21), (78.09, .17), (77.87, .20), (78.39, .14)),
        'resnet56':
        _compared((72.52, .27), (73.57, .29), (73.93, .16), (74.21, .33),
                  (74.02, .39), (75.17, .24), (75.26, .27), (75.35, .33)),
    }
    cells = [
        cell for student, numbers in blocks.items()
        for cell in _rows('cifar100', student, 240, numbers)
    ]
    return Table('table1', 'CNNs on CIFAR-100', 'MTKD-RL (AAAI 2025), Table 1',
                 'CIFAR-100', tuple(cells), CIFAR_STUDENTS, 'resnet56',
                 _NO_EB_KD)


def _table2() -> Table:
    cells = _rows(
        'imagenet', 'resnet18', 100,
        _compared(70.35, 71.52, 71.56, 71.89, 71.67, 72.38, 72.33, 72.82))
    cells += _rows(
        'imagenet', 'resnet34', 100,
        _compared(73.64, 75.32, 75.55, 75.68, 75.66, 75.87, 76.06, 76.77))
    return Table('table2', 'CNNs on ImageNet', 'MTKD-RL (AAAI 2025), Table 2',
                 'ImageNet', tuple(cells),
                 dict(resnet18='ResNet-18', resnet34='ResNet-34'), 'resnet18',
                 _NO_EB_KD)


def _table3() -> Table:
    cells = _rows(
        'imagenet', 'deit-tiny', 300,
        _compared(72.23, 73.87, 73.98, 73.68, 73.72, 74.12, 74.35, 75.14))
    cells += _rows(
        'imagenet', 'cait-xxs24', 300,
        _compared(77.32, 78.36, 78.27, 78.57, 78.44, 78.65, 78.42, 79.22))
    return Table('table3', 'ViTs on ImageNet', 'MTKD-RL (AAAI 2025), Table 3',
                 'ImageNet', tuple(cells),
                 {'deit-tiny': 'DeiT-Tiny', 'cait-xxs24': 'CaiT-XXS24'},
                 'deit-tiny', _NO_EB_KD)


def _variant(name: str,
             title: str,
             mean: float | None = None,
             std: float | None = None) -> Cell:
    """MTKD-RL's ShuffleNetV2 of Table 1 with something changed."""
    student = 'shufflenetv2-x1.0'
    return Cell(
        student, name, title,
        f'cifar100/mtkd_rl/ablations/mtkd-rl_{student}_240e_cifar100_{name}.py',
        mean, std)


def _table6a() -> Table:
    cells = (
        _variant('updater-pg', 'PG', 78.39, .14),
        _variant('updater-dpg', 'DPG', 78.16, .11),
        _variant('updater-ddpg', 'DDPG', 78.05, .22),
        _variant('updater-ppo', 'PPO', 78.28, .08),
    )
    return Table('table6a', 'how the agent is trained',
                 'MTKD-RL (AAAI 2025), Table 6(a)', 'CIFAR-100', cells,
                 SHUFFLENET, 'shufflenetv2-x1.0')


def _table6b() -> Table:
    student = 'shufflenetv2-x1.0'
    cells = (
        Cell(student, 'aver', 'AVER',
             _config('cifar100', student, 'aver', 240), 76.83, .34),
        _variant('state-performance', 'teacher performance: f, z, CE', 77.84,
                 .17),
        _variant('state-gaps', 'teacher-student gaps: cos, KL', 77.46, .21),
        _variant('state-all', 'all', 78.39, .14),
    )
    return Table('table6b', 'what the agent sees',
                 'MTKD-RL (AAAI 2025), Table 6(b)', 'CIFAR-100', cells,
                 SHUFFLENET, student)


def _table7() -> Table:
    student = 'resnet18'
    changed = 'imagenet/mtkd_rl/**/mtkd-rl_resnet18_100e_imagenet_*'
    cells = (
        Cell(student, 'baseline', 'Baseline',
             _config('imagenet', student, 'baseline', 100), 70.35),
        Cell(student, 'mtkd-rl', 'MTKD-RL',
             _config('imagenet', student, 'mtkd-rl', 100), 72.82),
        Cell(student, 'dist', '+DIST', f'{changed}dist.py', 73.29),
        Cell(student, 'nd', '+ND', f'{changed}nd.py', 73.61),
    )
    return Table('table7', 'with other losses', 'MTKD-RL (AAAI 2025), Table 7',
                 'ImageNet', cells, dict(resnet18='ResNet-18'), student)


def _fig2() -> Table:
    student = 'shufflenetv2-x1.0'
    full = (78.39, .14)
    cells = [
        Cell(student, 'baseline', 'Baseline',
             _config('cifar100', student, 'baseline', 240), 72.84, .15),
        # The text has the gains over the baseline, 4.14 and 3.61 points.
        _variant('logit-only', 'logit loss only', 76.98),
        _variant('feature-only', 'feature loss only', 76.45),
        Cell(student, 'mtkd-rl', 'both losses',
             _config('cifar100', student, 'mtkd-rl', 240), *full),
    ]
    for key, chosen, values in (('alpha', 1, (.5, 1, 2, 5)),
                                ('beta', 5, (1, 2, 5, 10)),
                                ('teachers', 4, (1, 2, 3, 4))):
        cells += [
            _variant(f'{key}-{v:g}', f'{key} = {v:g}',
                     *(full if v == chosen else (None, None)))
            for v in values
        ]
    return Table('fig2', 'loss weights, loss terms, number of teachers',
                 'MTKD-RL (AAAI 2025), Fig. 2', 'CIFAR-100', tuple(cells),
                 SHUFFLENET, student,
                 'The curves of Fig. 2 are not printed as numbers; the values '
                 'of alpha and beta beside 1 and 5 are our choice. Rows that '
                 'say the same are one run.')


TABLES: dict[str, Table] = {
    table.name: table
    for table in (_table1(), _table2(), _table3(), _table6a(), _table6b(),
                  _table7(), _fig2(), *FLOW_TABLES)
}
