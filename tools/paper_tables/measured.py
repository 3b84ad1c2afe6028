"""Results that this project has measured, cell by cell.

The pages and ``tools/reproduce.py --list`` show them beside the papers'
numbers. After running a table, add the accuracies and times of
``work_dirs/reproduce/SCALE/TABLE.json`` to ``MEASURED``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from paper_tables.cells import Cell, Table
from paper_tables.scales import find_scale


@dataclass(frozen=True)
class Measured:
    """Results of a cell's runs.

    Attributes:
        accuracy: The table's metric at the end of a run in %, by seed.
        cpu_seconds: Mean processor time of a run; ``None`` if not recorded.
        best: Highest value of each run in %, by seed; empty if not recorded.
    """
    accuracy: Mapping[int, float]
    cpu_seconds: float | None = None
    best: Mapping[int, float] = field(default_factory=dict)


def _runs(*accuracy: float, cpu: float | None = None,
          best: tuple[float, ...] = ()) -> Measured:
    """Results of the seeds 0, 1, ..."""
    return Measured(dict(enumerate(accuracy)), cpu, dict(enumerate(best)))


#: Results by (table, scale, spoiled teacher), then by (student, method).
MEASURED: dict[tuple[str, str, str], dict[tuple[str, str], Measured]] = {
    ('table1', 'short', ''): {
        ('resnet8', 'baseline'): _runs(14.29, 14.51, 14.49, cpu=110),
        ('resnet8', 'aver-kd'): _runs(21.65, 22.19, 21.77, cpu=202),
        ('resnet8', 'aver'): _runs(26.01, 25.90, 26.53, cpu=214),
        ('resnet8', 'eb-kd'): _runs(26.31, 26.20, 26.90, cpu=217),
        ('resnet8', 'amtml-kd'): _runs(21.95, 21.82, 21.90, cpu=223),
        ('resnet8', 'ae-kd'): _runs(23.12, 22.56, 22.31, cpu=221),
        ('resnet8', 'ca-mkd_official'): _runs(23.78, 24.03, 23.87, cpu=231),
        ('resnet8', 'ca-mkd'): _runs(26.49, 26.12, 26.76, cpu=223),
        ('resnet8', 'mmkd'): _runs(28.33, 27.70, 28.11, cpu=272),
        ('resnet8', 'mtkd-rl'): _runs(27.77, 28.61, 28.18, cpu=225),
    },
    ('table1', 'short', 'wrn10-2'): {
        ('resnet8', 'aver'): _runs(24.03, 23.99),
        ('resnet8', 'eb-kd'): _runs(23.97),
        ('resnet8', 'amtml-kd'): _runs(22.81),
        ('resnet8', 'ae-kd'): _runs(22.79),
        ('resnet8', 'ca-mkd'): _runs(25.57, 25.56),
        ('resnet8', 'mmkd'): _runs(23.62, 24.91),
        ('resnet8', 'mtkd-rl'): _runs(27.60, 27.57),
    },
    ('fig2', 'short', ''): {
        ('resnet8', 'teachers-1'): _runs(28.91, 28.40, 28.19, cpu=133),
    },
    ('transfer-bccd', 'short', ''): {
        ('resnet8-bccd', 'none'):
        _runs(44.90, 45.20, 45.10, cpu=177,
              best=(44.90, 45.20, 45.10)),
        ('resnet8-bccd', 'baseline'):
        _runs(46.30, 46.10, 43.90, cpu=161,
              best=(46.30, 46.10, 43.90)),
        ('resnet8-bccd', 'aver'):
        _runs(44.30, 46.40, 46.50, cpu=174,
              best=(44.30, 46.40, 46.50)),
        ('resnet8-bccd', 'mtkd-rl'):
        _runs(44.90, 45.40, 46.50, cpu=158,
              best=(44.90, 45.40, 46.50)),
        ('resnet8-bccd', 'longer'):
        _runs(47.00, 46.20, 47.30, cpu=161,
              best=(47.00, 46.20, 47.30)),
    },
    ('transfer-camvid', 'short', ''): {
        ('resnet8-camvid', 'none'):
        _runs(35.57, 35.88, 36.21, cpu=204, best=(35.57, 35.88, 36.21)),
        ('resnet8-camvid', 'baseline'):
        _runs(38.01, 38.42, 37.81, cpu=196, best=(38.01, 38.87, 37.81)),
        ('resnet8-camvid', 'aver'):
        _runs(39.66, 40.33, 40.22, cpu=202, best=(39.66, 40.33, 40.22)),
        ('resnet8-camvid', 'mtkd-rl'):
        _runs(40.18, 40.12, 40.03, cpu=203, best=(40.18, 40.12, 40.03)),
        ('resnet8-camvid', 'longer'):
        _runs(41.19, 41.74, 40.93, cpu=194, best=(41.19, 41.74, 40.93)),
    },
    ('kf-halves', 'short', ''): {
        ('second-half', 'baseline'): _runs(31.20, 32.64, 31.38, cpu=141),
        ('second-half', 'finetune-classes'):
        _runs(46.62, 46.28, 46.86, cpu=140),
        ('second-half', 'finetune-rotations'):
        _runs(32.58, 32.38, 32.72, cpu=124),
        ('second-half', 'kf-classes'): _runs(39.32, 38.74, 38.50, cpu=187),
        ('second-half', 'kf-rotations'): _runs(30.56, 31.82, 31.28, cpu=190),
        ('second-half', 'kf-both'): _runs(37.96, 37.68, 37.58, cpu=199),
        ('second-half', 'kf-untrained'): _runs(31.18, 29.04, 31.22, cpu=201),
        ('second-half', 'kf-good-and-poor'): _runs(37.70, 37.24, cpu=203),
        ('second-half', 'kf-paper'): _runs(29.72, 30.78, cpu=184),
    },
    ('kf-digits', 'short', ''): {
        ('digits', 'baseline'): _runs(66.94, 66.90),
        ('digits', 'kd'): _runs(67.95, 67.49),
        ('digits', 'kf'): _runs(61.85, 61.98),
        ('digits', 'kfkd'): _runs(65.98, 65.15),
        ('digits-no3', 'baseline'): _runs(62.94, 62.52),
        ('digits-no3', 'kd'): _runs(65.44, 65.11),
        ('digits-no3', 'kf'): _runs(57.47, 59.14),
        ('digits-no3', 'kfkd'): _runs(60.81, 61.48),
    },
}


def measured(table: Table, cell: Cell, scale: str,
             spoil: str = '') -> Measured | None:
    """Results of a cell at a scale; ``None`` if there are none.

    Args:
        table: Table of the cell.
        cell: The cell. If one student replaces all students at this scale,
            all cells of a method have the same results.
        scale: Name of the scale.
        spoil: Teacher that was trained on permuted labels; ``''`` for none.
    """
    if scale not in table.scales:
        return None
    student = find_scale(table, scale).student_name or cell.student
    return MEASURED.get((table.name, scale, spoil), {}).get(
        (student, cell.method))


def command(table: Table, scale: str, spoil: str = '') -> str:
    """Command that reruns all measured cells of a table at a scale."""
    found = MEASURED[table.name, scale, spoil]
    seeds = sorted({seed for runs in found.values() for seed in runs.accuracy})
    methods = dict.fromkeys(method for _, method in found)
    words = [table.name, '--scale', scale, '--seeds', *map(str, seeds),
             '--methods', *methods]
    words += ['--spoil', spoil] if spoil else []
    return 'python tools/reproduce.py ' + shlex.join(words)
