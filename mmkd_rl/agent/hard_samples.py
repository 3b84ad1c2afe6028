"""Samples that the student finds hard, with what the teachers said of them.

MMKD (Zhang et al. 2023) learns its weights on such a buffer: the published
code keeps 256 images that were misclassified and runs the teachers on them
again. Ours keeps fewer, from the last few batches, with the teachers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkd_rl.records import ModelOutput


@dataclass(frozen=True)
class HardSamples:
    """Some samples of a training batch.

    Attributes:
        inputs: What the student was given, [B, ...].
        targets: Class indices [B], or class probabilities [B, C].
        teachers: One output a teacher.
    """
    inputs: Tensor
    targets: Tensor
    teachers: tuple[ModelOutput, ...]

    def __len__(self) -> int:
        """B."""
        return len(self.inputs)

    def columns(self) -> list[Tensor]:
        """All its tensors, [B, ...] each."""
        return [self.inputs, self.targets] + [
            t for o in self.teachers for t in (o.logits, o.feature)]

    @classmethod
    def of(cls, columns: Sequence[Tensor]) -> HardSamples:
        """The inverse of :meth:`columns`."""
        inputs, targets, *rest = columns
        return cls(inputs, targets,
                   tuple(map(ModelOutput, rest[::2], rest[1::2])))

    def map(self, fn: Callable[[Tensor], Tensor]) -> HardSamples:
        """``fn`` of each tensor."""
        return self.of([fn(t) for t in self.columns()])


class HardBuffer:
    """The hardest samples of each of the last batches.

    Args:
        max_samples: Bound on their number.
        max_bytes: Bound on their memory.
        share: How much of each batch is hard, at least one sample.

    Raises:
        ValueError: A bound is not positive, or ``share`` not in (0, 1].
    """

    def __init__(self,
                 max_samples: int = 64,
                 max_bytes: int = 64 * 2**20,
                 share: float = 0.25) -> None:
        for name, value in (('buffer_size', max_samples), ('buffer_bytes',
                                                           max_bytes)):
            if value < 1:
                raise ValueError(f'weighting.{name} must be >= 1, got {value}')
        if not 0 < share <= 1:
            raise ValueError('weighting.hard_share must be in (0, 1], got '
                             f'{share}')
        self.max_samples, self.max_bytes = max_samples, max_bytes
        self.share = share
        self._batches: list[HardSamples] = []

    def __len__(self) -> int:
        """Samples in it."""
        return sum(map(len, self._batches))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(map(_nbytes, self._batches))

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [t for b in self._batches for t in b.columns()]

    def clear(self) -> None:
        """Forget everything."""
        self._batches = []

    def add(self, batch: HardSamples, hardness: Tensor) -> None:
        """Keep the hardest samples of a batch; forget the oldest ones.

        Args:
            batch: A whole training batch.
            hardness: Student's cross entropy, [B].

        Raises:
            ValueError: Not even one sample fits in ``max_bytes``.
        """
        row = _nbytes(batch) // len(batch)
        fit = min(self.max_samples, self.max_bytes // row)
        if not fit:
            raise ValueError(f'weighting.buffer_bytes={self.max_bytes} holds '
                             f'no single sample, which takes {row} bytes')
        count = min(fit, max(1, int(self.share * len(batch))))
        index = hardness.topk(count).indices
        hard = batch.map(lambda t: t.detach()[index])
        if self._batches and _kind(self._batches[0]) != _kind(hard):
            # Mixup that is on now and then makes targets of another kind;
            # the two cannot be one batch.
            self.clear()
        self._batches.append(hard)
        while len(self) > self.max_samples or self.nbytes > self.max_bytes:
            self._batches.pop(0)

    def draw(self, count: int) -> HardSamples:
        """``count`` of the samples, or all if they are fewer, at random."""
        index = torch.randperm(len(self))[:count]
        index = index.to(self._batches[0].inputs.device)
        columns = zip(*(b.columns() for b in self._batches))
        return HardSamples.of([torch.cat(c)[index] for c in columns])

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move along with the distiller."""
        self._batches = [b.map(fn) for b in self._batches]

    def state_dict(self) -> list[list[Tensor]]:
        """Its batches, each as its tensors."""
        return [b.map(lambda t: t.cpu()).columns() for b in self._batches]

    def load_state_dict(self, state: list[list[Tensor]]) -> None:
        """Fill it with what :meth:`state_dict` returned."""
        self._batches = [HardSamples.of(columns) for columns in state]


def _nbytes(samples: HardSamples) -> int:
    return sum(t.numel() * t.element_size() for t in samples.columns())


def _kind(samples: HardSamples) -> list[tuple]:
    return [(t.shape[1:], t.dtype) for t in samples.columns()]
