"""Teachers with other classes than the student.

A class map gives for each class of the student the teacher's class, or -1 if
the teacher was not trained on it. The pool converts a teacher's logits to the
student's classes with it; a class that is not in the map gets the teacher's
lowest score and is marked in :attr:`OutputSpec.known`. For logit terms see
losses/class_map.py. On an image whose class is not in a teacher's map the
teacher's logits are not distilled, and its weight goes to the teachers that
were trained on the class; with a label for each pixel, the teacher's pixels of
such classes are left out, and its weight is that of the others' share. Its
feature is distilled with the strategy's weight.

Two classes of the student must not be mapped to the same class of the teacher:
its probability would count twice, and the teacher gives no division of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_rl.options import ConfigError

UNSEEN = -1


class ClassMap(nn.Module):
    """Converts logits over a teacher's classes to the student's classes.

    Args:
        classes: For each of the student's C classes the teacher's index, or -1
            if the teacher was not trained on it; or a dict from the student's
            index to the teacher's without these classes.
        num_teacher: Number of the teacher's classes.
        num_student: C.
        key: The teacher's config key, for messages.
        copies: How often both networks' channels repeat their classes.

    Raises:
        TypeError: ``classes`` is neither a list nor a dict of integers.
        ValueError: The length is wrong, an index does not exist or occurs
            twice, or no class is mapped.
    """

    index: Tensor
    known: Tensor

    def __init__(self, classes: Sequence[int] | Mapping[int, int],
                 num_teacher: int, num_student: int, key: str,
                 copies: int = 1) -> None:
        super().__init__()
        row = _as_list(classes, num_student, key)
        if len(row) != num_student:
            raise ValueError(
                f'{key}: class_map has {len(row)} entries, but the student '
                f"{num_student} classes; write one entry for each of the "
                "student's classes: the teacher's index of it, or "
                f'{UNSEEN} where the teacher was not trained on it')
        if bad := [i for i in row if not UNSEEN <= i < num_teacher]:
            raise ValueError(f'{key}: class_map has {bad[:5]}, but the '
                             f"teacher's classes are 0 to {num_teacher - 1}")
        if max(row) == UNSEEN:
            raise ValueError(
                f"{key}: class_map knows none of the student's classes; leave "
                'class_map out and set model.logit_loss=None, so that all '
                "teachers' features alone are distilled, or leave this "
                'teacher out')
        for theirs in row:
            if theirs != UNSEEN and row.count(theirs) > 1:
                twice = [c for c in range(num_student) if row[c] == theirs]
                raise ValueError(
                    f"{key}: class_map uses the teacher's class {theirs} for "
                    f'several classes of the student, {twice[:5]}, so its '
                    'probability would count several times. Keep it for the '
                    f'class with the same meaning, and write {UNSEEN} for '
                    'classes that are only a part of it')
        self.key = key
        index = torch.tensor(row)
        first = num_teacher * torch.arange(copies)[:, None]
        self.register_buffer('index', (first + index.clamp_min(0)).flatten())
        self.register_buffer('known', (index != UNSEEN).repeat(copies))

    @property
    def indices(self) -> Tensor:
        """The teacher's class for each of the student's, -1: none."""
        return torch.where(self.known, self.index, UNSEEN)

    def select(self, teacher_BK: Tensor) -> Tensor:
        """The teacher's logits over the student's classes, [B, C, ...];
        classes that are not in the map get its lowest score.

        Args:
            teacher_BK: The teacher's logits over its own classes,
                [B, K, ...].
        """
        known = self.known.view(-1, *[1] * (teacher_BK.ndim - 2))
        return torch.where(known, teacher_BK[:, self.index],
                           teacher_BK.amin(1, keepdim=True))


def check_names(name: str, theirs: Sequence[str],
                own: Sequence[str]) -> None:
    """Raise ConfigError where a teacher without class map has a class of the
    student at another index, and warn where it has none of its classes.

    Letters and digits alone are compared. Names that only one of both has may
    be spelled in another way, and are not compared.

    Args:
        name: The teacher's name.
        theirs: Names of its classes.
        own: Names of the student's classes.
    """
    given = [_letters(n) for n in theirs]
    places = {n: i for i, n in enumerate(given)}
    # ImageNet has two classes named crane, so the same index comes first.
    row = [c if given[c:c + 1] == [n] else places.get(n, UNSEEN)
           for c, n in enumerate(map(_letters, own))]
    if all(i == UNSEEN for i in row):
        print_log(
            f'teacher {name!r}: none of its classes ({_some(theirs)}) has the '
            f"name of one of the student's ({_some(own)}). If they are the "
            f'same in the same order, class_map=list(range({len(row)})) says '
            'so; otherwise give it the class_map that is right',
            'current', logging.WARNING)
    moved = [c for c, i in enumerate(row) if i not in (c, UNSEEN)]
    if not moved:
        return
    first = moved[0]
    text = f'{row}' if len(row) <= 40 else \
        f'[{", ".join(map(str, row[:10]))}, ...]'
    raise ConfigError(
        f'teacher {name!r}: its classes are in another order: {own[first]!r} '
        f"is the student's class {first} and the teacher's {row[first]} "
        f'({len(moved)} of {len(row)} differ). Give it class_map={text}, or '
        f'class_map=list(range({len(row)})) if the names in its checkpoint '
        'are wrong')


def _letters(name: str) -> str:
    """A name in the form in which names are compared."""
    return ''.join(filter(str.isalnum, name.lower())) or name


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:3])) + (', ...' if len(names) > 3
                                              else '')


def _as_list(classes: Sequence[int] | Mapping[int, int], num_student: int,
             key: str) -> list[int]:
    if isinstance(classes, Mapping):
        if bad := [c for c in classes if not _is_index(c) or
                   not 0 <= c < num_student]:
            raise ValueError(f'{key}: class_map names {bad[:5]}, but the '
                             f"student's classes are 0 to {num_student - 1}")
        classes = [classes.get(c, UNSEEN) for c in range(num_student)]
    if isinstance(classes, str) or not isinstance(classes, Sequence) or \
            not all(map(_is_index, classes)):
        raise TypeError(
            f"{key}: class_map must be a list with the teacher's index of "
            "each of the student's classes, or a dict from the student's "
            f"indices to the teacher's, got {classes!r}")
    return [int(c) for c in classes]


def _is_index(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
