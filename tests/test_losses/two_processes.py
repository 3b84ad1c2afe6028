"""A small student with a PKDLoss, for one process or two: run as a script, one
process of two. Imports little, so that processes start quickly."""

import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmkd_rl.losses import PKDLoss
from mmkd_rl.records import Output, OutputSpec, Truth
from tests.commands import two_processes

#: Levels of the student and the first teacher, and of the second.
SHAPES = (((4, 6, 6), (3, 3, 3)), ((5, 6, 6), (2, 3, 3)))


class Student(nn.Module):
    """Two levels and the term's projectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 3, 2, 2)
        self.term = PKDLoss()
        self.term.build(
            OutputSpec('student', SHAPES[0]),
            [OutputSpec(str(m), shapes) for m, shapes in enumerate(SHAPES)],
            dict(norm=False))

    def forward(self, images, teachers, truth):
        first = self.first(images).tanh()
        return self.term(Output((first, self.second(first))), teachers, truth)


def step(model, images, call):
    """Gaps, loss and gradients of some images of a batch of six, in which one
    image of each half has no valid pixels and brightness rises."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 6, 6, generator=g) + \
        torch.arange(6.).view(-1, 1, 1, 1) / 3
    teachers = [
        Output(tuple(torch.randn(6, *s, generator=g)[images] for s in shapes))
        for shapes in SHAPES]
    valid = torch.ones(6, 12, 12)
    valid[0, 4:] = 0
    valid[[2, 5]] = 0
    truth = Truth(None, valid[images], valid[images].sum((1, 2)))
    weights = torch.rand(6, 2, generator=g)[images]
    gaps = call(x[images], teachers, truth)
    loss = truth.mean((weights * gaps).sum(1))
    loss.backward()
    return dict(gaps=gaps.detach(), loss=loss.detach(), gradients={
        name: p.grad for name, p in model.named_parameters()})


def run(folder):
    """Results of both processes, each with half of the batch."""
    two_processes('-m', __name__, folder)
    return [torch.load(folder / f'rank{rank}.pth', weights_only=True)
            for rank in range(2)]


if __name__ == '__main__':
    target = sys.argv[1]
    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    model = Student()
    results = step(model, slice(3 * rank, 3 * rank + 3),
                   DistributedDataParallel(model))
    torch.save(results, f'{target}/rank{rank}.pth')
    distributed.destroy_process_group()
