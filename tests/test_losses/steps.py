"""Steps of a distiller with a given loss, for the tests of all losses."""

import torch
from mmengine.model import BaseModule
from torch import nn

from mmkd_rl.records import Output, Pair, Truth
from mmkd_rl.registry import MODELS
from tests.toy import CLASSES, World, classifier, distiller, samples, truth


@MODELS.register_module(force=True)
class MapBackbone(BaseModule):
    """[B, 3, 4, 4] -> maps [B, width, 2, 2]."""

    def __init__(self, width=8, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, width, 2, 2)

    def forward(self, x):
        return (self.conv(x), )


def maps(width=8):
    """Config of a classifier on :class:`MapBackbone`."""
    cfg = classifier(width)
    cfg['backbone'] = dict(type='mmkd_rl.MapBackbone', width=width)
    return cfg


def build(count=3, widths=(5, 7, 7), width=8, **kwargs):
    """Build a distiller whose networks output maps; ``width`` is the
    student's."""
    torch.manual_seed(0)
    teachers = [
        dict(name=f't{i}', config=maps(widths[i]), checkpoint='untrained')
        for i in range(count)
    ]
    return MODELS.build(
        distiller(teachers, student=maps(width), **kwargs)).train()


def step(model, size=6, dtype=None):
    """Losses of a step; checks that losses and gradients are finite."""
    images, labels = World().batch(size)
    with torch.autocast('cpu', dtype or torch.bfloat16,
                        enabled=dtype is not None):
        losses = model(images, samples(labels), mode='loss')
    model.zero_grad()
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values()), losses
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    return losses


def check_with_strategies(size=6, count=3, dtype=None, **kwargs):
    """Train with equal weights, and with an agent before and after its update
    with the paper's reward, which depends on the loss."""
    for weighting in (dict(type='AverageWeighting'),
                      dict(type='MTKDRL', reward=dict(type='DistanceReward'))):
        model = build(count, weighting=weighting, **kwargs)
        step(model, size, dtype)
        if weighting['type'] == 'MTKDRL':
            strategy = model.distillation.weighting
            strategy.learner.remember(model.distillation.last_step.weights.record)
            strategy.learner.update()
            losses = step(model, size, dtype)
            weights = model.distillation.last_step.weights
            assert weights.logit.shape == (size, count)
            torch.testing.assert_close(
                weights.logit.sum(1), torch.ones(size), atol=1e-4, rtol=0)
        else:
            losses = step(model, size, dtype)
        for name in ('logit', 'feature'):
            if kwargs.get(f'{name}_loss', True) is not None:
                assert float(losses[f'loss_{name}'].detach()) != 0


def random_logits(size=6, count=4, classes=CLASSES, seed=0, dtype=None):
    """Random logits of the student [B, C] and of teachers [B, M, C]."""
    g = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(size, classes, generator=g, dtype=dtype),
            3 * torch.randn(size, count, classes, generator=g, dtype=dtype))


def of_logits(term, student_BC, teachers_BMC, targets=None):
    """Gaps of a logit term with one level, [B, M]."""
    return term(
        Output(logits=(student_BC, )),
        [Output(logits=(z, )) for z in teachers_BMC.unbind(1)],
        labels(targets, len(student_BC)))


def of_features(term, pairs, targets=None):
    """Gaps of a feature term for an aligned pair (student, teacher) of each
    teacher, one level, [B, M]."""
    return term.compare(
        tuple((Pair(s, t), ) for s, t in pairs),
        labels(targets, len(pairs[0][0])))


def labels(targets, size):
    """Truth with all points valid; ``None`` for no labels."""
    return Truth(None, None, torch.ones(size)) if targets is None else \
        truth(targets)
