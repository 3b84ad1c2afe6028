"""Results of the demo: as data, as a table, and in words."""

from __future__ import annotations

import math
from typing import Any

from demo_parts.steps import CORRUPTED, TEACHERS
from needs import need

NETWORKS = dict(mask_rcnn='Mask R-CNN', pspnet='PSPNet')


def summarize(records: dict[str, dict], seed: int, iterations: int) -> dict:
    """Content of summary.json; results are fractions of 1.

    Args:
        records: Record of each step by name, see :class:`.steps.Step`.
        seed: Seed of the trainings.
        iterations: Iterations of a student's training.
    """

    def value(step: str, key: str) -> float:
        number = records[step]['metrics'][key]
        return round(number if key.startswith('coco') else number / 100, 5)

    return dict(
        teachers={
            name: value(f'teacher_{name}', 'accuracy/top1')
            for name in TEACHERS
        },
        student={
            name: value(f'student_{name}', 'accuracy/top1')
            for name in ('alone', 'aver', 'mtkd_rl')
        },
        detector={
            name: value(f'mask_rcnn_{name}', 'coco/bbox_mAP')
            for name in ('plain', 'mtkd_rl')
        },
        segmentor={
            name: value(f'pspnet_{name}', 'mIoU')
            for name in ('plain', 'mtkd_rl')
        },
        seconds={name: record['seconds'] for name, record in records.items()},
        seed=seed,
        iterations=iterations)


def table(summary: dict, records: dict[str, dict]) -> str:
    """Table of the results, one line a network."""
    seconds = summary['seconds']
    rows: list[Any] = []

    def add(title: str, step: str, text: str) -> None:
        rows.append((title, text, f'{seconds[step]:.0f}'))

    for name, accuracy in summary['teachers'].items():
        note = ', half its labels wrong' if name == CORRUPTED else ''
        add(f'teacher {name}{note}', f'teacher_{name}', f'{accuracy:.1%}')
    for name, title in (('alone', 'alone'),
                        ('aver', 'with AVER (equal weights)'),
                        ('mtkd_rl', "with MTKD-RL (the agent's weights)")):
        add(f'student {title}', f'student_{name}',
            f'{summary["student"][name]:.1%}')
    for kind, head in (('mask_rcnn', 'box / mask AP'), ('pspnet', 'mIoU')):
        rows += [need('tabulate').SEPARATING_LINE, ('', head, '')]
        for name, title in (('plain', 'the student alone'),
                            ('mtkd_rl', 'the MTKD-RL student')):
            step = f'{kind}_{name}'
            metrics = records[step]['metrics']
            add(f'{NETWORKS[kind]} from {title}', step,
                f'{metrics["coco/bbox_mAP"]:.1%} / '
                f'{metrics["coco/segm_mAP"]:.1%}' if kind == 'mask_rcnn' else
                f'{summary["segmentor"][name]:.1%}')
    rest = sum(s for n, s in seconds.items()
               if n.startswith(('scenes', 'export')))
    rows.append(('scenes rendered, backbones exported', '', f'{rest:.0f}'))
    return need('tabulate').tabulate(
        rows, ('', 'accuracy', 'seconds'), disable_numparse=True,
        colalign=('left', 'right', 'right'))

def explain(summary: dict, weights: dict | None, images: int) -> str:
    """Text about the results and about differences that may be chance.

    Args:
        summary: Result of :func:`summarize`.
        weights: Record of the teachers' weights over the training, see
            :class:`mmkd_rl.visualization.WeightRecord`.
        images: Number of test images.
    """
    teachers, student = summary['teachers'], summary['student']
    good = {k: v for k, v in teachers.items() if k != CORRUPTED}
    best = max(good.values())
    alone = student['alone']
    chance = 200 * math.sqrt(2 * alone * (1 - alone) / images)

    def versus(new: float, old: float) -> tuple[str, bool]:
        """Difference in words, and whether it may be chance."""
        points = 100 * (new - old)
        text = f'{abs(points):.1f} points ' + (
            'above' if points >= 0 else 'below')
        if abs(points) < .05:
            text = 'level with'
        return text, abs(points) < chance

    lines = []
    corrupted = teachers[CORRUPTED]
    text, _ = versus(corrupted, min(good.values()))
    lines.append(
        f'Teachers: {", ".join(good)} learned from true labels. {CORRUPTED} '
        f'learned from labels of which half were wrong, and is {text} the '
        'weaker of them.')
    text, _ = versus(alone, best)
    lines.append(f'Alone the student is {text} the best teacher.')
    for name, title in (('aver', 'AVER'), ('mtkd_rl', 'MTKD-RL')):
        text, small = versus(student[name], alone)
        lines.append(f'With {title} it is {text} itself alone'
                     f'{", which can be chance" if small else ""}.')
    text, small = versus(student['mtkd_rl'], student['aver'])
    lines.append(f'MTKD-RL is {text} AVER'
                 f'{", which can be chance" if small else ""}.')
    if weights and weights['logit']:
        for kind in ('logit', 'feature'):
            share = dict(
                zip(weights['teachers'], weights[kind][-1], strict=True))
            equal = sum(share.values()) / len(share)
            listed = ', '.join(f'{k} {v:.2f}' for k, v in share.items())
            lines.append(
                f'At the end the mean {kind} weights are {listed}: the '
                f'corrupted teacher gets {share[CORRUPTED] / equal - 1:+.0%} '
                'compared with equal weights.')
    for key, title, unit in (('detector', 'The detector', 'box AP'),
                             ('segmentor', 'The segmentor', 'mIoU')):
        text, _ = versus(summary[key]['mtkd_rl'], summary[key]['plain'])
        lines.append(f'{title} that starts from the MTKD-RL student is {text} '
                     f'the one from the student alone ({unit}).')
    lines.append(
        f'This is one run of one seed ({summary["seed"]}). With {images:,} '
        f'test images, two accuracies less than about {chance:.1f} points '
        'apart can differ by chance alone, and AP and mIoU on 100 scenes vary '
        'more than that; other seeds: make demo DEMO_ARGS="--seed 1".')
    return '\n'.join(f'- {line}' for line in lines)
