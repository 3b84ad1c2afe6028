"""One teacher: a frozen network with taps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd_rl.errors import is_ours, raised_at
from mmkd_rl.records import Batch, Output, OutputSpec
from mmkd_rl.registry import EXECUTORS, build
from mmkd_rl.taps import OutputTaps, Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.executor import Executor, Given, Tensors
from mmkd_rl.teachers.facts import Facts
from mmkd_rl.teachers.normalization import InputAdapter, Normalization
from mmkd_rl.teachers.tapped import TappedNetwork
from mmkd_rl.teachers.windows import SlidingWindow

_NO_FACTS = Facts()


class FrozenTeacher(nn.Module):
    """A network that is never trained.

    Args:
        name: Name of the teacher in configs, logs and messages.
        model: The network; frozen and set to eval here.
        taps: Taps of the output.
        task: Adapter that runs the network.
        normalization: Normalisation in the teacher's training; ``None``: that
            of the student.
        input_size: (H, W) to which images are resized; ``None``: not resized.
        input_scale: Factor by which images are resized, without
            ``input_size``.
        precision: See :class:`TappedNetwork`.
        executor: Config of the executor, see :class:`Executor`.
        facts: What its checkpoint says.
    """

    def __init__(self, name: str, model: nn.Module, taps: OutputTaps,
                 task: Task, normalization: Normalization | None = None,
                 input_size: tuple[int, int] | None = None,
                 precision: str | None = None,
                 executor: str | dict = 'eager',
                 facts: Facts = _NO_FACTS,
                 input_scale: float = 1.) -> None:
        super().__init__()
        self.name, self.normalization = name, normalization
        self.facts = facts
        self.input_size, self.input_scale = input_size, input_scale
        self._taps, self._task = taps, task
        self.tapped = TappedNetwork(
            model, task.run,
            InputAdapter(None, None, input_size, input_scale,
                         _channels(model)), precision,
            SlidingWindow.of(model))
        self._features = self.tapped.install(model, taps.features)
        self._logits = self.tapped.install(model, taps.logits)
        self._edges = self.tapped.install(model, taps.edges)
        self._inner = slice(0, 0)
        #: Indices of the levels of features that are used; ``None``: all.
        self.levels: tuple[int, ...] | None = None
        self.executor: Executor = build(
            EXECUTORS,
            dict(type=executor) if isinstance(executor, str) else executor,
            'executor', name=name, network=self.tapped, read=self._read)
        self.requires_grad_(False)
        self.eval()

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.tapped.network

    @property
    def taps(self) -> OutputTaps:
        """Where its outputs are read."""
        return self._taps

    @property
    def root(self) -> nn.Module:
        """The module to which paths of inner layers are relative."""
        return self._task.inner_root(self.model)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Do nothing: a teacher stays in evaluation mode."""
        return super().train(False)

    def adapt(self, student: Normalization | None) -> None:
        """Set the normalisation of the student's images; ``None``: assumed to
        be the teacher's own."""
        device = next((p.device for p in self.model.parameters()), None)
        self.tapped.adapter = InputAdapter(
            student, self.normalization, self.input_size,
            self.input_scale, _channels(self.model)).to(device)

    def listen(self, taps: Sequence[Tap]) -> None:
        """Set the taps of inner layers that are also read.

        Args:
            taps: Taps with paths relative to :attr:`root`.

        Raises:
            ValueError: The executor cannot give them.
        """
        if not self.executor.gives_inner_layers:
            raise ValueError(
                f'teacher {self.name!r}: {type(self.executor).__name__} '
                'cannot give the inner layers that Knowledge Flow needs; use '
                "executor='eager'")
        self._inner = self.tapped.install(self.root, taps)

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Output, tuple[Tensor, ...]]:
        """The teacher's output, logits over its own classes; and the tensors
        of the taps of :meth:`listen`.

        Args:
            batch: Images normalised for the student.
        """
        return self.executor(batch)

    def _read(self, tensors: Tensors) -> Given:
        """The output and the inner layers, of the taps' tensors."""
        features, logits, edges, inner = (
            tuple(t for levels in tensors[where] for t in levels)
            for where in (self._features, self._logits, self._edges,
                          self._inner))
        if self.levels is not None:
            features = tuple(features[i] for i in self.levels)
        return Output(features, tuple(map(self._task.scores, logits)),
                      edges), inner

    def try_on(self, batch: Batch) -> Output:
        """Run the teacher on images of a size that it may not accept.

        Raises:
            ValueError: The teacher fails on these images.
        """
        try:
            return self(batch)[0]
        except (RuntimeError, TypeError, AssertionError,
                ValueError) as error:
            place = raised_at(error)
            if not isinstance(error, (RuntimeError, AssertionError)) and \
                    place is not None and is_ours(place[0]):
                raise  # a fault of ours, or a message of a tap
            window = self.tapped.window
            given, own = batch.images.shape[1], _channels(self.model)
            if own is not None and given not in (1, own):
                raise ValueError(
                    f'teacher {self.name!r} takes images of {own} channels, '
                    f"and the student's have {given}") from error
            raise ValueError(
                f'teacher {self.name!r} fails on images of shape '
                f'{tuple(batch.images.shape)}: {error}; if it needs another '
                f'size, give it input_size={window.size if window else "..."}'
            ) from error

    def classify(self, feature: Tensor) -> Tensor:
        """Logits of the teacher's classifier alone, [B, C]; gradients reach
        the feature.

        Args:
            feature: Feature of the shape of :meth:`forward`'s.

        Raises:
            ValueError: The task cannot run the classifier alone.
        """
        return self._task.classify(self.model, self._taps, feature,
                                   f'teacher {self.name!r}')

    def predict(self, features: Sequence[Tensor]) -> Output:
        """Logits and edges of the teacher's head alone; gradients reach the
        features.

        Args:
            features: One a level, of the shapes of :meth:`forward`'s.

        Raises:
            ValueError: The task cannot run the head alone.
        """
        return self._task.predict(self.model, features,
                                  f'teacher {self.name!r}')

    def probe(self, batch: Batch) -> OutputSpec:
        """The sizes of the teacher's output.

        Raises:
            ValueError: The teacher fails, or gives NaN or infinity.
        """
        output = self.try_on(batch)
        if not all(t.isfinite().all() for t in output.tensors()):
            raise ValueError(
                f'teacher {self.name!r} gives NaN or infinity on a grey '
                'image; check its checkpoint')
        return spec_of(self.name, output)


def _channels(model: nn.Module) -> int | None:
    """Channels of the images that a network takes, 1 or 3: those of its first
    convolution; ``None``: not known."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)),
                 None)
    # YOLOX' first one has twelve.
    return first.in_channels if first is not None and first.in_channels in (
        1, 3) else None


def spec_of(name: str, output: Output) -> OutputSpec:
    """Sizes of an output.

    Raises:
        ValueError: A feature is neither a map nor a vector.
    """
    for feature in output.features:
        if feature.ndim not in (2, 4):
            raise ValueError(
                f'{name}: the tapped feature has shape '
                f'{tuple(feature.shape)}; tap a map [B, D, H, W] or a '
                f"vector [B, D] with taps=dict(feature='...')")
    return OutputSpec.of(name, output)
