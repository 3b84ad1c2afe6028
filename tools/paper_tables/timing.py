"""Time and memory of training steps, compared in one process.

Steps are timed in turns, so that changes of the machine's speed affect all of
them alike; compare the ratios. Peak memory is the sum of all tensors that live
between steps and of the highest memory that the step allocates.
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
        model: The model; it is set to training mode.
        cfg: Config of the training; only ``optim_wrapper`` is used.
        data: The batch to train on, in the data loader's format.
    """

    def __init__(self, model: Any, cfg: Config, data: dict) -> None:
        self.model = model.train()
        self.optimizer: OptimWrapper = build_optim_wrapper(
            model, cfg.optim_wrapper)
        self.data = data

    def step(self) -> None:
        """Run an iteration as the runner and the hooks do."""
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
    """Time steps in turns. The order is reversed every other turn, so that a
    step does not always follow the same one.

    Args:
        steps: Steps by name.
        warmup: Number of turns before the timed ones.
        iters: Number of timed turns.

    Returns:
        Seconds of each timed turn by the step's name.
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
    """Wall time of a step, including the work of the GPU."""
    _wait()
    start = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - start


def peak(step: Step) -> int:
    """Largest number of bytes that a step has allocated at once, in addition
    to the memory in use before it."""
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
    """Median of the ratios of each turn, in which a slow moment affects
    numerator and denominator alike."""
    return statistics.median(x / y for x, y in zip(a, b))


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a module."""
    yield from module.parameters()
    yield from module.buffers()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """State tensors of an optimiser, such as momentum."""
    for state in optimizer.state.values():
        yield from (v for v in state.values() if isinstance(v, Tensor))


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Total size of tensors in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def setting(images: Tensor, iters: int) -> dict[str, Any]:
    """Conditions of a measurement: batch, turns, device and versions.

    Args:
        images: The batch, [B, ...].
        iters: Number of timed turns.
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
    """Format the entries of :func:`setting` as one line."""
    return (f"batch {result['batch_size']} of {result['image_shape']}, "
            f"{result['iters']} turns, {result['device']}, "
            f"{result['threads']} threads, torch {result['torch']}")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
