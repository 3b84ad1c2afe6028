"""What each teacher knows of the training images, before it teaches them.

A teacher that is fed images in a wrong scale or channel order, or whose
classes have another order, gives confident nonsense, and the student learns
it without an error. On a few batches it shows: its loss is that of chance, or
no better than the student's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkd_rl.distillers import Distillation
from mmkd_rl.records import Batch, Output, SeenBatch, Truth
from mmkd_rl.utils.batch_norm import frozen_statistics
from mmkd_rl.utils.random_state import unchanged_on_cpu

STUDENT = 'the student'
#: A loss above this share of chance's is that of chance.
_CHANCE = .97
#: Augmentation costs a teacher less than this share of its accuracy.
_SHARE = .6
#: Number of images of which nothing can be said.
_FEW = 16
#: Ratio of sizes from which a teacher is warned of.
_SIZE = 1.6


@dataclass(frozen=True)
class NetworkReport:
    """One network on the images that were looked at.

    Attributes:
        name: Name of the teacher, or :data:`STUDENT`.
        loss: Mean loss of the task on the images whose classes it knows, for
            example cross entropy; NaN where the task has no class scores.
        right: Share of right labels (of images or pixels) on these; NaN
            likewise.
        figure: The main figure of its own validation, from its checkpoint.
        seconds: Time of the forward pass for one image.
        shapes: Shapes of its features for one image.
        sides: Shorter sides of the images of its training, from its
            checkpoint, and of those that it is given; ``None``: not known.
    """
    name: str
    loss: float
    right: float
    figure: str | None
    seconds: float
    shapes: tuple[tuple[int, ...], ...]
    sides: tuple[int, int] | None = None


@dataclass(frozen=True)
class Preflight:
    """Reports of all networks.

    Attributes:
        images: Number of images.
        classes: Number of classes of a softmax; 0 where there is none.
        networks: The student first.
    """
    images: int
    classes: int
    networks: tuple[NetworkReport, ...]

    @property
    def chance(self) -> float:
        """Loss of equal probabilities; NaN where there is no softmax."""
        return math.log(self.classes) if self.classes else math.nan

    def table(self) -> str:
        """The reports as text, for a terminal."""
        head = ['', 'loss', 'right', 'in its file', 'ms an image', 'features']
        rows = [head] + [[
            n.name, _number(n.loss, '.3f'), _number(100 * n.right, '.1f %'),
            n.figure or '', _number(1000 * n.seconds, '.1f'),
            ' '.join('x'.join(map(str, s)) for s in n.shapes)
        ] for n in self.networks]
        if self.classes:
            rows.append(['chance', _number(self.chance, '.3f'),
                         _number(100 / self.classes, '.1f %'), '', '', ''])
        # A column without values is left out.
        kept = [c for c in range(len(head)) if any(r[c] for r in rows[1:])]
        widths = [max(len(r[c]) for r in rows) for c in kept]
        return '\n'.join('  '.join(
            r[c].ljust(w) if c in (0, 5) else r[c].rjust(w)
            for c, w in zip(kept, widths)).rstrip() for r in rows)

    def warnings(self) -> list[str]:
        """What is wrong with teachers, a sentence each; nothing of too few
        images."""
        if self.images < _FEW:
            return []
        student, *teachers = self.networks
        return [text for teacher in teachers for text in (
            self._warning(teacher, student), _size_warning(teacher)) if text]

    def _warning(self, teacher: NetworkReport,
                 student: NetworkReport) -> str:
        if math.isnan(teacher.loss):
            return ''
        if self._is_chance(teacher):
            return (f'teacher {teacher.name!r} is no better than chance on '
                    f'the training images (loss {teacher.loss:.3f}, of '
                    f'guessing {self.chance:.3f}; right '
                    f'{100 * teacher.right:.1f} %). Likely causes: '
                    'normalisation (mean, std, divided by 255 or not), '
                    'channel order (to_rgb), order of the classes '
                    '(class_map), another size of images (input_size), or '
                    'the wrong checkpoint')
        own = _top1(teacher.figure)
        if own is not None and 100 * teacher.right < _SHARE * own:
            return (f'teacher {teacher.name!r} is right on '
                    f'{100 * teacher.right:.1f} % of the training images, '
                    f'and was on {own:.1f} % of its own validation: it may '
                    'be fed wrongly (normalisation, channel order, order of '
                    'classes, size), or your images are of another kind')
        learns = not self.classes or student.loss < .9 * self.chance
        if learns and teacher.loss >= student.loss and not (
                teacher.right > student.right):
            return (f'teacher {teacher.name!r} is no better than the student '
                    f'on the training images (loss {teacher.loss:.3f} '
                    f'against {student.loss:.3f}): it has little to teach, '
                    'or it is fed wrongly (normalisation, channel order, '
                    'order of classes, size)')
        return ''

    def _is_chance(self, teacher: NetworkReport) -> bool:
        """Whether the loss is that of guessing or worse, and few labels are
        right; a teacher that is often right may be too sure of the rest."""
        return self.classes > 0 and not teacher.right > .5 and \
            teacher.loss > _CHANCE * self.chance


def _size_warning(teacher: NetworkReport) -> str:
    if teacher.sides is None:
        return ''
    own, given = teacher.sides
    if 1 / _SIZE < own / given < _SIZE:
        return ''
    return (f'teacher {teacher.name!r} was trained on images of {own} pixels '
            f'and is given {given}: most networks do worse on another size. '
            f'input_size={own} resizes the images for it')


def _top1(figure: str | None) -> float | None:
    """The accuracy in a figure, in percent; ``None`` for other figures."""
    name, _, value = (figure or '').rpartition(' ')
    return float(value) if 'top1' in name else None


class Examination:
    """Looks at batches of the training, one after the other.

    Neither weights, statistics of batch norm nor random numbers change.

    Args:
        model: The student's model.
        distillation: Its distillation.
    """

    def __init__(self, model: nn.Module, distillation: Distillation) -> None:
        self._model, self._distillation = model, distillation
        self._names = (STUDENT, *distillation.teacher_names)
        self._sums = torch.zeros(len(self._names), 3, dtype=torch.float64)
        self._seconds = [0.] * len(self._names)
        self._shapes: list[tuple[tuple[int, ...], ...]] = []
        self._side = 0
        #: Number of images so far.
        self.images = 0

    @torch.no_grad()
    def look(self, batch: Batch) -> None:
        """Run all networks on a batch.

        Args:
            batch: Images and samples from the model's data preprocessor.
        """
        distillation = self._distillation
        with unchanged_on_cpu(), frozen_statistics(self._model):
            truth = distillation.task.truth(batch)
            teachers, times = distillation.teachers.run_timed(batch)
            start = time.perf_counter()
            student = distillation.infer_student(
                self._model, SeenBatch(batch, truth, teachers))
            times.insert(0, time.perf_counter() - start)
            outputs = [student, *teachers.outputs]
            self._add(outputs, truth, len(batch.images))
        self._side = min(batch.images.shape[2:])
        self._seconds = [a + b for a, b in zip(self._seconds, times)]
        self._shapes = [tuple(tuple(f.shape[1:]) for f in o.features)
                        for o in outputs]

    def _add(self, outputs: Sequence[Output], truth: Truth,
             images: int) -> None:
        self.images += images
        judge = self._distillation.task.judge
        if judge is None:
            return
        known = self._distillation.known
        coverage = None if known is None else judge.class_coverage(
            truth, known)
        for row, output in enumerate(outputs):
            output = judge.match(outputs[0], output)
            counts_B = (truth.count > 0).double()
            if coverage is not None and row:
                counts_B = counts_B * (coverage[:, row - 1] > 0)
            right_B = judge.accuracy(output, truth)
            values = [-judge.quality(output, truth),
                      torch.full_like(counts_B, math.nan)
                      if right_B is None else right_B]
            self._sums[row] += torch.stack(
                [_sum(v, counts_B) for v in values] + [counts_B.sum()]).cpu()

    def report(self) -> Preflight:
        """The reports of all images so far."""
        task = self._distillation.task
        context = self._distillation.weighting.context
        classes = context.student.num_classes \
            if task.judge is not None and task.softmax else 0
        figures = [None, *(t.facts.figure
                           for t in self._distillation.teachers)]
        networks = []
        for i, name in enumerate(self._names):
            loss, right, count = self._sums[i].tolist()
            networks.append(NetworkReport(
                name, loss / count if count else math.nan,
                right / count if count else math.nan, figures[i],
                self._seconds[i] / max(1, self.images), self._shapes[i],
                self._sides(i - 1) if i else None))
        return Preflight(self.images, classes, tuple(networks))


    def _sides(self, index: int) -> tuple[int, int] | None:
        teacher = self._distillation.teachers[index]
        if teacher.facts.side is None or self._distillation.task.scope != \
                'mmpretrain':
            return None  # detectors' and segmentors' images differ in size
        given = min(teacher.input_size) if teacher.input_size else round(
            self._side * teacher.input_scale)
        return teacher.facts.side, given


def _sum(values_B: Tensor, counts_B: Tensor) -> Tensor:
    return torch.where(counts_B > 0, values_B.double(), 0.).sum()


def _number(value: float, form: str) -> str:
    digits, _, unit = form.partition(' ')
    return '' if math.isnan(value) else f'{value:{digits}} {unit}'.rstrip()
