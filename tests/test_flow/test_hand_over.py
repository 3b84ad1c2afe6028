"""Hand-over of teachers' features to the student and to theta_old.

In all cases a student is mixed with its teachers' features of the same images.
"""

import copy
from contextlib import contextmanager

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.registry import MODELS
from tests.toy import CLASSES, flow_classifier, samples, toy_teachers

from .parts import CIFAR, roots, teacher

LABELS = torch.arange(6) % CLASSES


@pytest.fixture
def cfg(tmp_path):
    return flow_classifier(toy_teachers(tmp_path))


@pytest.fixture
def images():
    return torch.randn(6, 3, 4, 4)


def attach(model, **options):
    """Attach the losses to a model; the student is alone from iteration 8."""
    hook = KnowledgeFlowHook(**{**dict(kl_weight=1.), **options})
    return hook.attach(model.train(), FlowSchedule(8, 8, .1))


def student_loss(model, images):
    """Loss of the student, and its gradients."""
    model.zero_grad()
    loss = model(images, samples(LABELS), mode='loss')['loss_student']
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters()
                             if p.grad is not None)]


def same(a, b):
    assert len(a) == len(b)
    return all(map(torch.equal, a, b))


def by_itself(model, images):
    """Expected result: the student's own hook runs the teachers."""
    own = copy.deepcopy(model)
    joint = attach(own, kl_weight=0.)
    joint.begin(0)
    return student_loss(own, images)


@contextmanager
def counted(model):
    """Record the images of each forward pass of each teacher."""
    flow, seen = flow_of(model), {}
    handles = [
        network.register_forward_hook(
            lambda m, args, out, n=name: seen.setdefault(n, []).append(
                args[0]))
        for name, network in zip(flow.teacher_names, roots(flow))]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_the_same_with_and_without_theta_old(cfg, images):
    """Teachers are run once an iteration, with and without a KL term."""
    model = MODELS.build(cfg)
    want = by_itself(model, images)
    joint = attach(model, kl_interval=2)
    for t in (0, 1, 8):
        joint.begin(t)
        with counted(model) as seen:
            got = student_loss(model, images)
        assert {n: len(s) for n, s in seen.items()} == (
            dict(t0=1, t1=1) if t < 8 else {})
        assert t == 8 or same(got, want)


@pytest.mark.parametrize('where', ['theta_old', 'before', 'behind'])
def test_a_forward_pass_that_failed(cfg, images, where):
    """The next batch is not mixed with the features of the failed one."""
    model = MODELS.build(cfg)
    other = images.flip(0) + 1
    want = by_itself(model, other)
    joint = attach(model)
    joint.begin(0)

    def fail(*_):
        raise MemoryError

    at = joint.old._own if where == 'theta_old' else model
    handle = at.backbone.register_forward_pre_hook(fail, prepend=True) \
        if where == 'before' else at.head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        model(images, samples(LABELS), mode='loss')
    handle.remove()
    listening = len(model.head._forward_hooks)
    with counted(model) as seen:
        assert same(student_loss(model, other), want)
    assert all(len(s) == 1 and s[0] is other for s in seen.values())
    assert len(model.head._forward_hooks) == listening - (where != 'theta_old')
    assert not model.head._forward_hooks


@pytest.mark.parametrize('fused, training', [
    (False, False), (True, False), (False, True)])
def test_another_look_behind_a_forward_pass_that_failed(
        cfg, images, fused, training):
    model = MODELS.build(cfg)
    other = images.flip(0) + 1
    flow = flow_of(model)
    joint = attach(model)
    joint.begin(0)
    flow.fuse_in_eval = fused
    want = model.train(training)(other, mode='tensor')
    model.train()
    handle = model.backbone.register_forward_pre_hook(
        lambda *_: 1 / 0, prepend=True)
    with pytest.raises(ZeroDivisionError):
        model(images, samples(LABELS), mode='loss')
    handle.remove()
    model.train(training)
    with counted(model) as seen:
        assert torch.equal(model(other, mode='tensor'), want)
    assert len(seen) == (2 if fused or training else 0)


def test_validation_between_two_steps(cfg, images):
    """The steps are the same with and without a validation between them."""
    ends = []
    for validates in (True, False):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        joint = attach(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=.3)
        for t in range(3):
            joint.begin(t)
            losses = model(images, samples(LABELS), mode='loss')
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            if validates:
                flow_of(model).fuse_in_eval = True
                model.eval()
                other = images + t
                with counted(model) as seen:
                    model(other, mode='tensor')
                assert all(len(s) == 1 and s[0] is other
                           for s in seen.values()) and len(seen) == 2
                model.train()
                flow_of(model).fuse_in_eval = False
        ends.append(list(model.state_dict().values()))
    assert same(*ends)


# ------------------------------------------------------------- other models


class TwoViews(BaseModel):
    """Model with two views of each image, in a list as for self-supervised
    models, whose backbone runs twice."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, nn.Linear(8, CLASSES)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = [self.head(self.backbone(x)[0].flatten(1)) for x in inputs]
        if mode == 'tensor':
            return logits
        target = torch.tensor([int(s.gt_label) for s in data_samples])
        return dict(loss=sum(
            (i + 1) * nn.functional.cross_entropy(z, target)
            for i, z in enumerate(logits)))


def test_a_backbone_that_runs_on_several_images(cfg, images):
    views = [images, images.flip(0) + 1]
    model = TwoViews(MODELS.build(cfg))
    want = by_itself(model, views)
    wrong = by_itself(model, views[::-1])
    joint = attach(model)
    joint.begin(0)
    with counted(model) as seen:
        got = student_loss(model, views)
    assert same(got, want) and not same(got, wrong)
    # theta_old and the student: the first view is shared.
    assert [x is views[0] for x in seen['t0']] == [True, False, False]
    assert [x is views[1] for x in seen['t0']] == [False, True, True]


class OtherNames(BaseModel):
    """Model with other argument names (MMEngine requires only ``mode``), which
    also changes the images before the backbone."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, nn.Linear(8, CLASSES)

    def forward(self, imgs, labels=None, mode='tensor'):
        z = self.head(self.backbone(2 * imgs)[0].flatten(1))
        return z if mode == 'tensor' else dict(
            loss=nn.functional.cross_entropy(z, labels))


@pytest.mark.parametrize('names', [True, False])
def test_a_model_of_one_s_own(cfg, images, names):
    """Teachers get the images that the backbone gets."""
    model = OtherNames(MODELS.build(cfg))
    joint = attach(model, kl_weight=0. if names else 1.)
    joint.begin(0)
    args = ((), dict(imgs=images, labels=LABELS)) if names else (
        (images, LABELS), {})
    with counted(model) as seen:
        losses = model(*args[0], **args[1], mode='loss')
    assert ('loss_kl' in losses) != names
    for name in ('t0', 't1'):
        shown, = seen[name]
        assert torch.equal(shown, 2 * images)


# ------------------------------------------------ recomputing, copies, others


def cifar(**student):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmkd_rl.KnowledgeFlowBackbone',
            student=dict(CIFAR, **student), probe_size=16,
            teachers=[teacher('a'), teacher('b')]),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES,
                  in_channels=64))


def step(model, images, t=0):
    """Losses and gradients of a complete step."""
    model.zero_grad()
    losses = model(images, samples(LABELS), mode='loss')
    sum(losses.values()).backward()
    return [*losses.values(), *(p.grad for p in model.parameters())]


def test_activation_checkpointing_with_all_losses():
    """Recomputation in the backward pass mixes again, with the stored features
    of the same batch, and does not run the teachers."""
    images = torch.randn(6, 3, 16, 16)
    model, again = MODELS.build(cifar()), MODELS.build(cifar(with_cp=True))
    again.load_state_dict(model.state_dict())
    flow_of(again)._pool = flow_of(model)._pool
    results = []
    for one in (model, again):
        joint = attach(one, handover_weight=1.)
        for fusion in joint.flow.fusions:
            fusion.logits.data[0] = -1.  # full trust in teachers
        one.head.fc.weight.data += .1  # theta_old differs from theta
        joint.begin(4)
        with counted(one) as seen:
            results.append(step(one, images))
        assert {n: len(s) for n, s in seen.items()} == dict(a=1, b=1)
        assert all(v > 0 for v in results[-1][:4])
    for a, b in zip(*results):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5 * a.detach().abs().max().item() + 1e-9)


def test_two_models_take_turns(cfg, tmp_path, images):
    """Two models with nested forward passes on the same images."""
    folder = tmp_path / 'others'
    folder.mkdir()
    others = toy_teachers(folder, scale=2.)[::-1]
    models = [MODELS.build(c) for c in (cfg, flow_classifier(others))]
    twins = copy.deepcopy(models)
    want = []
    for model in twins:
        attach(model).begin(0)
        want.append(step(model, images))
    for model in models:
        attach(model).begin(0)
    losses = [m(images, samples(LABELS), mode='loss') for m in models]
    for one in losses[::-1]:
        sum(one.values()).backward()
    for model, one, result in zip(models, losses, want):
        assert same([*one.values(), *(p.grad for p in model.parameters())],
                    result)


def test_a_copy_made_in_training_goes_its_own_way(cfg, images):
    """The copy may be that of EMAHook or a user's."""
    model = MODELS.build(cfg)
    joint = attach(model)
    joint.begin(0)
    step(model, images)
    copied = copy.deepcopy(model)
    model.zero_grad()
    other = images.flip(0) + 1
    want = step(model, other)
    model.zero_grad()
    with counted(model) as seen:  # they share the teachers
        got = step(copied, other)
    assert {n: len(s) for n, s in seen.items()} == dict(t0=1, t1=1)
    assert same(got, want)
    assert all(p.grad is None for p in model.parameters())
    flow_of(copied).retire(['t0', 't1'])
    assert not flow_of(model).independent
