"""Seconds and bytes of training steps, side by side in one process.

Steps are timed in turns, so that a machine whose speed drifts slows all of
them alike: look at the ratios. Peak memory is what a step needs at once: all
tensors that live between steps plus the highest sum of what the step
allocates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmkd_rl.distillers import distillation_of

Step = Callable[[], Any]


class Contestant:
    """A model with its own optimiser that makes training steps.

    Args:
        model: It is put into training mode.
        cfg: Of the training; ``optim_wrapper`` is read.
        data: The batch to train on, as the data loader gives it.
    """

    def __init__(self, model: Any, cfg: Config, data: dict) -> None:
        self.model = model.train()
        self.optimizer: OptimWrapper = build_optim_wrapper(
            model, cfg.optim_wrapper)
        self.data = data

    def step(self) -> None:
        """What the runner and the hooks do in an iteration."""
        self.model.train_step(self.data, self.optimizer)

    def resident(self) -> Iterable[Tensor]:
        """Tensors that live from one step to the next."""
        yield from tensors_of(self.model)
        yield from (p.grad for p in self.model.parameters()
                    if p.grad is not None)
        yield from optimizer_tensors(self.optimizer.optimizer)
        distillation = distillation_of(self.model)
        for teacher in distillation.teachers if distillation else ():
            yield from tensors_of(teacher)

    def memory(self) -> int:
        """Bytes at the highest point of an iteration."""
        return peak(self.step) + nbytes(self.resident())


def in_turns(steps: dict[str, Step], warmup: int,
             iters: int) -> dict[str, list[float]]:
    """Seconds of each step, turn by turn; the order is reversed every other
    turn, so that nobody always runs behind the same one.

    Args:
        steps: By name.
        warmup: Turns that do not count.
        iters: Turns that do.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + iters):
        order = list(steps) if turn % 2 else list(reversed(steps))
        for name in order:
            passed = seconds(steps[name])
            if turn >= warmup:
                times[name].append(passed)
    return times


def seconds(step: Step) -> float:
    """Wall time of a step, the device's work included."""
    _wait()
    start = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - start


def peak(step: Step) -> int:
    """Highest sum of bytes that a step allocates beyond what lived before."""
    step()
    if torch.cuda.is_available():
        _wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        _wait()
        return torch.cuda.max_memory_allocated() - before
    with profile(
            activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    assert run.profiler is not None
    events = [
        e for e in run.profiler.kineto_results.events()
        if e.name() == '[memory]'
    ]
    total = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return highest


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of the ratios turn by turn: a slow moment hits both sides."""
    return statistics.median(x / y for x, y in zip(a, b))


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Momentum and the like."""
    for state in optimizer.state.values():
        yield from (v for v in state.values() if isinstance(v, Tensor))


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Sum of their sizes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def setting(images: Tensor, iters: int) -> dict[str, Any]:
    """What a figure must be read beside.

    Args:
        images: The batch, [B, ...].
        iters: Timed turns.
    """
    return dict(
        batch_size=len(images),
        image_shape=list(images.shape[1:]),
        iters=iters,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name()
        if torch.cuda.is_available() else 'cpu',
        torch=torch.__version__)


def describe(result: Mapping[str, Any]) -> str:
    """:func:`setting` as a line."""
    return (f"batch {result['batch_size']} of {result['image_shape']}, "
            f"{result['iters']} turns, {result['device']}, "
            f"{result['threads']} threads, torch {result['torch']}")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
