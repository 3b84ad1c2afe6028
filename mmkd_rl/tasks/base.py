"""Base classes of tasks: all knowledge about one kind of network.

A task adapter knows one kind of network: where it keeps its outputs, how a
teacher is run, what the truth of a batch is, and how good an output is on an
image. Strategies, rewards and the agent's state ask it and never look at
labels or axes themselves.

Legend: B batch, M teachers, C classes, D channels, H W space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.taps import OutputTaps
from mmkd_rl.utils.pooling import pooled_features

#: A tap's config: a path, or the arguments of :class:`Tap`.
TapConfig = str | dict


class Task(ABC):
    """Adapter between one kind of network and the common records."""

    #: Scope in which the parts of its networks are looked up.
    scope: str | None = None
    #: Options of projectors that differ from :class:`Projector`'s defaults.
    projector: dict = {}
    #: Whether of a teacher's model only the backbone is built and run.
    backbone_only = False

    # --------------------------------------------------- how networks are run

    def taps(self, model: nn.Module, cfg: dict | None, key: str) -> OutputTaps:
        """Where to read a network's output.

        Args:
            model: The network.
            cfg: The user's ``taps=dict(feature=..., logits=...)``, a tap each
                or a list of one a level; what it leaves out is the task's
                default.
            key: The network's config key, for messages.

        Raises:
            ValueError: An unknown key or a path that does not exist.
        """
        if cfg is not None and not isinstance(cfg, dict):
            raise ValueError(f"{key}.taps must be dict(feature='...', "
                             f"logits='...'), got {cfg!r}")
        cfg = dict(cfg or {})
        if unknown := set(cfg) - {'feature', 'logits'}:
            raise ValueError(f'{key}.taps has unknown {sorted(unknown)}; it '
                             "takes 'feature' and 'logits'")
        return OutputTaps(
            model,
            _as_list(cfg.get('feature') or self.feature_taps(model, key)),
            _as_list(cfg.get('logits') or self.logit_taps(model, key)), key)

    def scope_for(self, default: str | None) -> str | None:
        """Where the parts of a network without a prefix are looked up: the
        default scope of its config, or the task's package where that is ours
        (we have no heads and necks of our own)."""
        return self.scope if default in (None, 'mmkd_rl', 'mmengine') \
            else default

    @abstractmethod
    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """Default taps of the features, one or one a level."""

    @abstractmethod
    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """Default taps of the logits; an empty list: there are none."""

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """One forward pass without losses, as far as taps need it."""
        return model(batch.images, mode='tensor')

    def infer(self, model: nn.Module, taps: OutputTaps,
              batch: Batch) -> Output:
        """What taps read in one forward pass without losses."""
        with taps.recording(model) as recording:
            self.run(model, batch)
        return recording.output()

    def inner_root(self, model: nn.Module) -> nn.Module:
        """The module to which paths of inner layers are relative, of which
        Knowledge Flow links some: the backbone, if the network has one."""
        return getattr(model, 'backbone', model)

    def classify(self, model: nn.Module, taps: OutputTaps, feature: Tensor,
                 key: str) -> Tensor:
        """Logits from a feature of the shape that the taps read: the part of
        a network behind its feature tap.

        Raises:
            ValueError: This task, or this network, has no such part.
        """
        raise ValueError(f'{key}: {type(self).__name__} cannot run a '
                         'classifier on a feature')

    # ------------------------------------------- labels, and what follows

    @abstractmethod
    def truth(self, batch: Batch) -> Truth:
        """Labels and valid points of a batch."""

    def quality(self, output: Output, truth: Truth) -> Tensor:
        """How good an output is on each image, [B], larger is better; zeros
        where a task cannot tell."""
        return torch.zeros_like(truth.count)

    # ------------------------------------------------- for the agent's state

    def feature_summary(self, output: Output, truth: Truth) -> Tensor:
        """Features in a fixed size, [B, S]: all levels, averaged over valid
        points."""
        return pooled_features(output, truth)

    def summary_sizes(self, spec: OutputSpec) -> dict[str, int]:
        """S by part of the agent's state, ``'feature'`` and ``'logit'``."""
        return dict(feature=sum(spec.channels), logit=spec.num_classes)


class LogitTask(Task):
    """A task whose networks give class scores that labels can judge.

    What looks at labels or class scores (strategies, rewards, the agent's
    state) needs one of these and asks it; it does not index scores itself.
    """

    @abstractmethod
    def quality(self, output: Output, truth: Truth) -> Tensor:
        """Minus the task's loss of an output on each image, a mean over valid
        points, [B]."""

    @abstractmethod
    def margin(self, output: Output, truth: Truth) -> Tensor:
        """Probability of the true class minus that of the likeliest other
        class, in [-1, 1], a mean over valid points, [B]."""

    @abstractmethod
    def entropy(self, output: Output, truth: Truth) -> Tensor:
        """Entropy of the predictions at T = 1, in nats, a mean over valid
        points, [B]."""

    @abstractmethod
    def logit_gradient(self, output: Output,
                       truth: Truth) -> tuple[Tensor, ...]:
        """Gradient of each image's task loss at its logits, detached: for
        each level [B, C, ...]."""

    @abstractmethod
    def inner_product(self, a: Tensor, b_BM: Tensor, truth: Truth) -> Tensor:
        """Inner products of gradients at one level's logits: a sum over
        classes, a mean over valid points, [B, M].

        Args:
            a: The student's, [B, C, ...].
            b_BM: Each teacher's, [B, M, C, ...].
            truth: Of the batch.
        """

    @abstractmethod
    def class_coverage(self, truth: Truth, known_MC: Tensor) -> Tensor:
        """How much of each image is of classes that each teacher has been
        trained on, [B, M] in [0, 1].

        Args:
            truth: Of the batch.
            known_MC: Which of the student's classes each teacher has been
                trained on.
        """

    @abstractmethod
    def logit_summary(self, output: Output, truth: Truth) -> Tensor:
        """Logits in a fixed size for the agent's state, [B, S]."""


def _as_list(taps: TapConfig | Sequence[TapConfig]) -> list[Any]:
    return list(taps) if isinstance(taps, (list, tuple)) else [taps]
