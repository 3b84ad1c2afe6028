"""What a task must say about its networks, so that nobody else needs to.

A task adapter knows one OpenMMLab package: where its networks keep logits and
last feature, and how their targets are written. The forward passes themselves
are the same for all of them, because every OpenMMLab model answers
``mode='loss'`` and ``mode='tensor'``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from mmkd_rl.records import ModelOutput
from mmkd_rl.taps import OutputTaps


class Task(ABC):
    """Adapter between one kind of network and the common records."""

    #: Scope in which the parts of its networks are looked up.
    scope: str

    def taps(self, model: nn.Module, cfg: dict | None, key: str) -> OutputTaps:
        """Where to read a network's output.

        Args:
            model: The network.
            cfg: The user's ``taps=dict(feature=..., logits=...)``; what it
                leaves out is the task's default.
            key: The network's config key, for messages.

        Raises:
            ValueError: An unknown key or a path that does not exist.
        """
        cfg = dict(cfg or {})
        if unknown := set(cfg) - {'feature', 'logits'}:
            raise ValueError(f'{key}.taps has unknown {sorted(unknown)}; it '
                             "takes 'feature' and 'logits'")
        feature = cfg.get('feature') or self.feature_tap(model, key)
        logits = cfg.get('logits') or self.logits_tap(model, key)
        return OutputTaps(model, feature, logits, key)

    def scope_for(self, default: str | None) -> str:
        """Where the parts of a network without a prefix are looked up: the
        default scope of its config, or the task's package where that is ours
        (we have no heads and necks of our own)."""
        return self.scope if default in (None, 'mmkd_rl', 'mmengine') \
            else default

    @abstractmethod
    def feature_tap(self, model: nn.Module, key: str) -> str | dict:
        """Default tap of the last feature."""

    @abstractmethod
    def logits_tap(self, model: nn.Module, key: str) -> str | dict:
        """Default tap of the logits."""

    @abstractmethod
    def targets(self, data_samples: Sequence) -> Tensor:
        """The true labels of a batch, as :class:`DistillationBatch` says."""

    @abstractmethod
    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """CE of each sample, [B]: how good a network is on it. Which pixels
        count, and at which resolution, only the task knows."""

    def classify(self, model: nn.Module, taps: OutputTaps, feature: Tensor,
                 key: str) -> Tensor:
        """Logits from a feature of the shape that the taps read: the part of
        a network behind its feature tap.

        Raises:
            ValueError: This task, or this network, has no such part.
        """
        raise ValueError(f'{key}: {type(self).__name__} cannot run a '
                         'classifier on a feature')

    def student_step(self, model: nn.Module, taps: OutputTaps, inputs: Tensor,
                     data_samples: Sequence) -> tuple[dict, ModelOutput]:
        """The student's own losses, and what it said on the way.

        The student computes its losses as it would alone, so that label
        smoothing, mixup or a head of the user's own go on working; the taps
        listen, so that nothing is computed twice.
        """
        with taps.recording():
            losses = model(inputs, data_samples, mode='loss')
        return dict(losses), taps.take()

    def infer(self, model: nn.Module, taps: OutputTaps,
              inputs: Tensor) -> ModelOutput:
        """Forward without losses: a teacher's step."""
        with taps.recording():
            model(inputs, mode='tensor')
        return taps.take()
