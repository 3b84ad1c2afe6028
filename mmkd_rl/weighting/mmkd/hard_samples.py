"""Buffer of hard samples (with high cross entropy) and the teachers' outputs.

MMKD (Zhang et al. 2023) learns its weights on such a buffer: the published
code keeps 256 misclassified images and runs the teachers on them again. Ours
keeps fewer, from the last few batches, with the teachers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkd_rl.options import ConfigError
from mmkd_rl.records import Output, SeenBatch
from mmkd_rl.utils.random_state import RandomNumbers


@dataclass(frozen=True)
class HardSamples:
    """Some samples of a training batch.

    Attributes:
        inputs: Inputs of the student, [B, ...].
        targets: Class indices [B], or class probabilities [B, C].
        teachers: Output of each teacher.
    """
    inputs: Tensor
    targets: Tensor
    teachers: tuple[Output, ...]

    def __len__(self) -> int:
        """B."""
        return len(self.inputs)

    @classmethod
    def of_batch(cls, seen: SeenBatch) -> HardSamples:
        """All samples of a batch."""
        return cls(seen.batch.images, seen.truth.targets,
                   seen.teachers.outputs)

    def columns(self) -> list[Tensor]:
        """All tensors, [B, ...] each."""
        return [self.inputs, self.targets] + [
            t for o in self.teachers for t in o.tensors()]

    @property
    def levels(self) -> list[list[int]]:
        """Numbers of features and logits of each teacher."""
        return [[len(o.features), len(o.logits)] for o in self.teachers]

    @classmethod
    def of(cls, columns: Sequence[Tensor],
           levels: Sequence[Sequence[int]]) -> HardSamples:
        """The inverse of :meth:`columns`.

        Args:
            columns: All tensors.
            levels: See :attr:`levels`.
        """
        inputs, targets, *rest = columns
        teachers = []
        for features, logits in levels:
            teachers.append(
                Output(tuple(rest[:features]),
                       tuple(rest[features:features + logits])))
            rest = rest[features + logits:]
        return cls(inputs, targets, tuple(teachers))

    def map(self, fn: Callable[[Tensor], Tensor]) -> HardSamples:
        """``fn`` of each tensor."""
        return HardSamples(
            fn(self.inputs), fn(self.targets),
            tuple(o.map(fn) for o in self.teachers))


class HardBuffer:
    """The hardest samples of each of the last batches.

    Args:
        max_samples: Largest number of samples.
        max_bytes: Largest number of bytes.
        share: Share of each batch that is kept, highest cross entropy first;
            at least one sample.
    """

    def __init__(self,
                 max_samples: int = 64,
                 max_bytes: int = 64 * 2**20,
                 share: float = 0.25) -> None:
        self.max_samples, self.max_bytes = max_samples, max_bytes
        self.share = share
        #: Generators of :meth:`draw`.
        self.random = RandomNumbers()
        self._batches: list[HardSamples] = []

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self._batches))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(map(_nbytes, self._batches))

    def tensors(self) -> list[Tensor]:
        """All tensors."""
        return [t for b in self._batches for t in b.columns()]

    def clear(self) -> None:
        """Remove all samples."""
        self._batches = []

    def add(self, batch: HardSamples, hardness: Tensor) -> None:
        """Add the hardest samples of a batch and remove the oldest batches.

        Args:
            batch: A whole training batch.
            hardness: Student's cross entropy, [B].

        Raises:
            ConfigError: Not even one sample fits in ``max_bytes``.
        """
        row = _nbytes(batch) // len(batch)
        fit = min(self.max_samples, self.max_bytes // row)
        if not fit:
            raise ConfigError(
                'buffer_bytes', f'{self.max_bytes} is too small: one sample '
                f'takes {row} bytes')
        count = min(fit, max(1, int(self.share * len(batch))))
        index = hardness.topk(count).indices
        hard = batch.map(lambda t: t.detach()[index])
        if self._batches and _kind(self._batches[0]) != _kind(hard):
            # With mixup in some batches only, targets have two formats, which
            # cannot be in one batch.
            self.clear()
        self._batches.append(hard)
        while len(self) > self.max_samples or self.nbytes > self.max_bytes:
            self._batches.pop(0)

    def draw(self, count: int) -> HardSamples:
        """Draw ``count`` samples at random, or all if there are fewer."""
        index = torch.randperm(
            len(self), generator=self.random.on('cpu'))[:count]
        index = index.to(self._batches[0].inputs.device)
        columns = zip(*(b.columns() for b in self._batches))
        return HardSamples.of([torch.cat(c)[index] for c in columns],
                              self._batches[0].levels)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move all tensors."""
        self._batches = [b.map(fn) for b in self._batches]

    def state_dict(self) -> list[dict]:
        """The buffer's batches, each as tensors with the layout of levels."""
        return [
            dict(columns=b.map(lambda t: t.cpu()).columns(), levels=b.levels)
            for b in self._batches
        ]

    def load_state_dict(self, state: list) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._batches = [
            HardSamples.of(**batch) if isinstance(batch, dict) else
            _of_first_layout(batch) for batch in state
        ]


def _of_first_layout(columns: Sequence[Tensor]) -> HardSamples:
    """Convert a batch of 0.1's first layout: logits before feature, one of
    each for each teacher."""
    inputs, targets, *rest = columns
    return HardSamples(
        inputs, targets,
        tuple(Output((f, ), (z, )) for z, f in zip(rest[::2], rest[1::2])))


def _nbytes(samples: HardSamples) -> int:
    return sum(t.numel() * t.element_size() for t in samples.columns())


def _kind(samples: HardSamples) -> list[tuple]:
    return [(t.shape[1:], t.dtype) for t in samples.columns()]
