"""Base classes of task adapters.

A task adapter handles one kind of network: where its outputs are tapped, how a
teacher is run, what the labels of a batch are, and how good an output is on an
image. Strategies, rewards and the agent's state call it and never read labels
or axes themselves.

Legend: B batch, M teachers, C classes, D channels, H W space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec, Truth
from mmkd_rl.taps import OutputTaps
from mmkd_rl.utils.pooling import pooled_features, resized

#: A tap's config: a path, or the arguments of :class:`Tap`.
TapConfig = str | dict


class Task(ABC):
    """Adapter between one kind of network and the common records."""

    #: Registry scope in which the parts of networks are looked up.
    scope: str | None = None
    #: Options of projectors that differ from :class:`Projector`'s defaults.
    projector: dict = {}
    #: Whether only the backbone of a teacher's model is built and run.
    backbone_only = False
    #: Sides of the images with which sizes of outputs are found, in pixels:
    #: larger ones are tried where a network fails on smaller ones.
    probe_sizes: tuple[int, ...] = (64, )
    #: Whether class scores are for a softmax over the classes; otherwise
    #: each is for a sigmoid.
    softmax = True
    #: Whether :attr:`Truth.targets` are boxes of objects where there are any
    #: labels.
    may_have_boxes = False

    @property
    def judge(self) -> LogitTask | None:
        """The task itself if it has labels and class scores."""
        return None

    @property
    def scores_per_class(self) -> int:
        """How often the logits' channels repeat the classes."""
        return 1

    @property
    def needs_same_size(self) -> bool:
        """Whether teachers must be given images in the student's size."""
        return False

    # --------------------------------------------------- how networks are run

    def prepare(self, model: nn.Module,  # noqa: B027
                teachers: Mapping[str, nn.Module]) -> None:
        """Read what labels mean from the student's model; called once.

        Args:
            model: The student.
            teachers: The teachers' networks by their names.

        Raises:
            ValueError: A teacher's class scores have another meaning.
        """

    def pair_levels(self, student: OutputSpec,
                    teacher: OutputSpec) -> tuple[tuple[int, int], ...] | None:
        """Which levels of features are compared: indices of the student's
        and the teacher's; ``None``: each with the one of the same index.

        Raises:
            ValueError: No levels can be compared.
        """
        return None

    def check(self, spec: OutputSpec,  # noqa: B027
              images: Tensor) -> None:
        """Refuse outputs that cannot be distilled.

        Args:
            spec: Sizes of a network's output.
            images: The images for which it was computed.

        Raises:
            ValueError: The outputs cannot be distilled; the message says why.
        """

    def match(self, student: Output, teacher: Output) -> Output:
        """A teacher's output with dense logits in the student's
        resolution."""
        if all(own.shape[2:] == theirs.shape[2:]
               for own, theirs in zip(student.logits, teacher.logits)):
            return teacher
        logits, edges = (
            tuple(resized(theirs, own.shape[2:])
                  for own, theirs in zip(of_student, of_teacher))
            for of_student, of_teacher in (
                (student.logits, teacher.logits),
                (student.edges, teacher.edges)))
        return Output(teacher.features, logits, edges)

    def taps(self, model: nn.Module, cfg: dict | None, key: str) -> OutputTaps:
        """Build the taps of a network's output.

        Args:
            model: The network.
            cfg: The user's ``taps=dict(feature=..., logits=...)``, each a tap
                or a list with a tap for each level; a missing key means the
                task's default.
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
            _as_list(cfg.get('logits') or self.logit_taps(model, key)), key,
            self.scores, self.edge_taps(model))

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of all classes for a softmax, [B, C, ...], of a network's
        logits."""
        return logits

    def scope_for(self, default: str | None) -> str | None:
        """Scope in which types without a prefix are looked up: the default
        scope of the network's config, or the task's package if that is
        ``mmkd_rl``, which has no heads and necks."""
        return self.scope if default in (None, 'mmkd_rl', 'mmengine') \
            else default

    @abstractmethod
    def feature_taps(self, model: nn.Module,
                     key: str) -> TapConfig | list[TapConfig]:
        """Default taps of the features, one or a list with one a level."""

    @abstractmethod
    def logit_taps(self, model: nn.Module,
                   key: str) -> TapConfig | list[TapConfig]:
        """Default taps of the logits; an empty list: there are none."""

    def edge_taps(self, model: nn.Module) -> list[TapConfig]:
        """Taps of :attr:`Output.edges`; an empty list: there are none."""
        return []

    def predict(self, model: nn.Module, features: Sequence[Tensor],
                key: str) -> Output:
        """Run the part of a network after its feature taps on features, and
        return its logits and edges.

        Args:
            model: The network.
            features: One a level, of the tapped shapes.
            key: The network's config key, for messages.

        Raises:
            ValueError: This task, or this network, has no such part.
        """
        raise ValueError(f'{key}: {type(self).__name__} cannot run a head on '
                         'features')

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """Run one forward pass without losses, at least up to the taps."""
        return model(batch.images, mode='tensor')

    def infer(self, model: nn.Module, taps: OutputTaps,
              batch: Batch) -> Output:
        """Output that the taps read in one forward pass without losses."""
        with taps.recording(model) as recording:
            self.run(model, batch)
        return recording.output()

    def inner_root(self, model: nn.Module) -> nn.Module:
        """The module to which Knowledge Flow's paths of inner layers are
        relative: the backbone, if the network has one."""
        return getattr(model, 'backbone', model)

    def classify(self, model: nn.Module, taps: OutputTaps, feature: Tensor,
                 key: str) -> Tensor:
        """Run the part of a network after its feature tap on a feature, and
        return the logits.

        Raises:
            ValueError: This task, or this network, has no such part.
        """
        raise ValueError(f'{key}: {type(self).__name__} cannot run a '
                         'classifier on a feature')

    # -------------------------------------------------------------- labels

    @abstractmethod
    def truth(self, batch: Batch) -> Truth:
        """Labels and valid pixels of a batch."""

    def truth_of(self, targets: Tensor) -> Truth:
        """The truth of single images, from :attr:`Truth.targets`."""
        return Truth.of_labels(targets)

    def quality(self, output: Output, truth: Truth) -> Tensor:
        """Quality of an output on each image, [B], larger is better; zeros
        for tasks without labels."""
        return torch.zeros_like(truth.count)

    # ------------------------------------------------- for the agent's state

    def feature_summary(self, output: Output, truth: Truth) -> Tensor:
        """Features in a fixed size, [B, S]: all levels, averaged over valid
        pixels."""
        return pooled_features(output, truth)

    def summary_sizes(self, spec: OutputSpec) -> dict[str, int]:
        """Sizes S of the parts ``'feature'`` and ``'logit'`` of the agent's
        state."""
        return dict(feature=sum(spec.channels), logit=spec.num_classes)


class LogitTask(Task):
    """A task with labels whose networks give class scores.

    Strategies, rewards and the agent's state call its methods and do not index
    labels or class scores themselves.
    """

    @property
    def judge(self) -> LogitTask | None:
        """The task itself."""
        return self

    @abstractmethod
    def quality(self, output: Output, truth: Truth) -> Tensor:
        """Negative loss of an output on each image, a mean over valid pixels,
        [B]."""

    def accuracy(self, output: Output, truth: Truth) -> Tensor | None:
        """Share of right answers on each image, [B] in [0, 1]; ``None``: the
        task has none."""
        return None

    @abstractmethod
    def margin(self, output: Output, truth: Truth) -> Tensor:
        """Probability of the true class minus that of the likeliest other
        class, in [-1, 1], a mean over valid pixels, [B]."""

    @abstractmethod
    def entropy(self, output: Output, truth: Truth) -> Tensor:
        """Entropy of the predictions at T = 1, in nats, a mean over valid
        pixels, [B]."""

    @abstractmethod
    def logit_gradient(self, output: Output,
                       truth: Truth) -> tuple[Tensor, ...]:
        """Gradient of each image's loss with respect to its logits, detached,
        [B, C, ...] for each level."""

    @abstractmethod
    def inner_product(self, a: Tensor, b_BM: Tensor, truth: Truth) -> Tensor:
        """Inner products of gradients at one level's logits: a sum over
        classes, a mean over valid pixels, [B, M].

        Args:
            a: Gradient of the student, [B, C, ...].
            b_BM: Gradients of the teachers, [B, M, C, ...].
            truth: Labels and valid pixels of the batch.
        """

    @abstractmethod
    def class_coverage(self, truth: Truth, known_MC: Tensor) -> Tensor:
        """Share of each image's labels that are of classes on which each
        teacher was trained, [B, M] in [0, 1].

        Args:
            truth: Labels and valid pixels of the batch.
            known_MC: Mask of the student's classes on which each teacher was
                trained.
        """

    def with_coverage(self, truth: Truth, known_MC: Tensor) -> Truth:
        """The truth with the pixels that each teacher knows, see
        :attr:`Truth.covered`; unchanged for tasks with one label an image.

        Args:
            truth: Labels and valid pixels of the batch.
            known_MC: See :meth:`class_coverage`.
        """
        return truth

    @abstractmethod
    def logit_summary(self, output: Output, truth: Truth) -> Tensor:
        """Logits in a fixed size for the agent's state, [B, S]."""


def neck_or_backbone(model: nn.Module, key: str, index: int | str) -> dict:
    """The tap of a dense model's maps: those of the neck, or of the backbone
    if there is no neck.

    Args:
        model: The network.
        key: The network's config key, for messages.
        index: See :class:`Tap`.

    Raises:
        ValueError: The model has neither.
    """
    for name in ('neck', 'backbone'):
        if isinstance(getattr(model, name, None), nn.Module):
            return dict(path=name, index=index)
    raise ValueError(
        f'{key}: {type(model).__name__} has neither a neck nor a '
        f'backbone; say where its features are with {key}.taps='
        "dict(feature='...')")


def _as_list(taps: TapConfig | Sequence[TapConfig]) -> list[Any]:
    return list(taps) if isinstance(taps, (list, tuple)) else [taps]
