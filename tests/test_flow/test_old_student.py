"""theta_old compared with a copy that the test keeps."""

import copy

import pytest
import torch
from torch import nn

from mmkd_rl.flow import flow_of
from mmkd_rl.flow.old_student import OldStudent, find_logits, logits_tap
from mmkd_rl.registry import MODELS

from .parts import roots, teacher


def classifier(backbone=None, teachers=1):
    import mmpretrain.models  # noqa: F401
    model = MODELS.build(dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone or dict(
            type='mmkd_rl.KnowledgeFlowBackbone',
            student=dict(type='mmkd_rl.PlainConvNet', width=3,
                         stages=[(1, ), (1, )]),
            teachers=[teacher(n) for n in 'ab'[:teachers]]),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=4,
                  in_channels=3)))
    flow_of(model).strength = 1.
    return model.train()


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16)


def ask(old, images):
    """Logits of the old student."""
    return old.logits(images)[0]


def change(model):
    with torch.no_grad():
        for p in model.parameters():
            p += .3 * torch.randn(p.shape)


def test_previous_is_what_the_network_was_at_its_last_update(images):
    model = classifier()
    old = OldStudent(model, 'head')
    now = model(images, mode='tensor')
    assert torch.equal(ask(old, images), now)  # initially equal
    change(model)
    assert torch.equal(ask(old, images), now)
    assert not torch.equal(model(images, mode='tensor'), now)
    old.update()
    assert torch.equal(ask(old, images), model(images, mode='tensor'))
    assert not ask(old, images).requires_grad


def test_average_is_the_exponential_one(images):
    """theta_old <- .8 theta_old + .2 theta, over all of theta, w and Q."""
    model = classifier()
    old = OldStudent(model, 'head', momentum=.8)
    want = {n: t.clone().double() for n, t in model.state_dict().items()}
    for _ in range(3):
        change(model)
        model(images, mode='tensor')  # changes the statistics of batch norm
        old.update()
        for n, t in model.state_dict().items():
            want[n] = .8 * want[n] + .2 * t.double() \
                if t.is_floating_point() else t.double()
    got = old.state_dict()['weights']
    assert got.keys() == want.keys()
    for n, t in got.items():
        torch.testing.assert_close(t.double(), want[n], rtol=1e-5, atol=1e-6)


def test_it_and_the_student_run_the_teachers_once(images):
    """In any order, also if the weights of the two differ."""
    model = classifier()
    old = OldStudent(model, 'head')
    change(model)
    want = [ask(old, images), model(images, mode='tensor')]
    runs, flow = [], flow_of(model)
    network, = roots(flow)
    network.register_forward_hook(lambda *_: runs.append(1))
    logits, features = old.logits(images)
    flow.lend(features)
    assert torch.equal(logits, want[0])
    assert torch.equal(model(images, mode='tensor'), want[1])
    assert len(runs) == 1
    logits, again = old.logits(images, features)
    assert torch.equal(logits, want[0]) and len(runs) == 1
    assert again is features


def test_it_says_what_the_teachers_said_of_the_backbone_s_first_images(
        images):
    model = classifier()
    old = OldStudent(model, 'head')
    first = flow_of(model).pool.inner(images, [True])
    old._own.backbone.register_forward_pre_hook(
        lambda m, args: (images, ), prepend=True)
    _, features = old.logits(torch.zeros_like(images))
    assert all(map(torch.equal, features[0], first[0]))
    flow_of(old._own).strength = 0.
    assert old.logits(images)[1] is None


def test_nothing_is_kept_of_a_batch(images):
    """No features are stored after a step, also if the network fails."""
    model = classifier()
    old = OldStudent(model, 'head')
    flow = flow_of(old._own)

    def nothing_is_left():
        return flow._lent is None and flow.first_features is None and \
            not any(m._features for m in flow._mixers)

    old.logits(images)
    assert nothing_is_left()
    handle = old._own.neck.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        old.logits(images)
    assert nothing_is_left()
    handle.remove()
    assert torch.equal(ask(old, images), model(images, mode='tensor'))


def test_it_leaves_no_trace_in_the_student(images):
    """It changes no gradients, statistics or stored features."""
    model = classifier()
    want = copy.deepcopy(model)
    logits = model(images, mode='tensor')
    old = OldStudent(model, 'head')
    ask(old, images)
    logits.sum().backward()
    want(images, mode='tensor').sum().backward()
    for (n, p), q in zip(model.named_parameters(), want.parameters()):
        assert torch.equal(p.grad, q.grad), n
    for (n, p), q in zip(model.named_buffers(), want.buffers()):
        assert torch.equal(p, q), n


@pytest.mark.parametrize('gone', [['a'], ['b'], ['a', 'b']])
def test_who_is_retired_is_not_asked_by_it(images, gone):
    """A teacher is retired after an iteration. In the next one its features
    are missing, before theta_old is updated."""
    model = classifier(teachers=2)
    old = OldStudent(model, 'head')
    flow, runs = flow_of(model), []
    for name, network in zip('ab', roots(flow)):
        network.register_forward_hook(lambda *_, n=name: runs.append(n))
    flow.retire(gone)
    logits, features = old.logits(images)
    assert runs == [n for n in 'ab' if n not in gone]
    flow.lend(features)
    assert torch.equal(logits, model(images, mode='tensor'))
    assert len(runs) == 2 - len(gone)


def test_strength_is_the_one_of_then(images):
    model = classifier()
    old = OldStudent(model, 'head')
    then = model(images, mode='tensor')
    flow_of(model).strength = .2
    assert torch.equal(ask(old, images), then)
    old.update()
    assert torch.equal(ask(old, images), model(images, mode='tensor'))


def test_dropped_units_are_no_change_of_mind(images):
    model = classifier(dict(
        type='mmkd_rl.KnowledgeFlowBackbone', teachers=[teacher()],
        student=dict(type='mmkd_rl.MLP', in_shape=(3, 16, 16), dropout=.5,
                     hidden=(20, 3))))
    model.neck = None
    old = OldStudent(model, 'head')
    assert torch.equal(ask(old, images), ask(old, images))
    assert not torch.equal(model(images, mode='tensor'),
                           model(images, mode='tensor'))


@pytest.mark.parametrize('student', [
    dict(type='mmkd_rl.PlainConvNet', width=3, stages=[(1, ), (1, )]),
    dict(type='mmkd_rl.PlainConvNet', width=3, stages=[(1, ), (1, )],
         norm_eval=True),
    dict(type='mmkd_rl.PlainConvNet', width=3, stages=[(1, ), (1, )],
         frozen_stages=1)])
def test_batch_norms_are_in_the_student_s_mode(images, student):
    model = classifier(dict(type='mmkd_rl.KnowledgeFlowBackbone',
                            student=student, teachers=[teacher()]))
    old = OldStudent(model, 'head')
    for _ in range(2):
        assert torch.equal(ask(old, images), model(images, mode='tensor'))


def test_state_goes_on_where_it_was(images):
    model = classifier()
    old = OldStudent(model, 'head', momentum=.5)
    flow_of(model).strength = .7
    change(model)
    old.update()
    again = OldStudent(model, 'head', momentum=.5)
    assert not torch.equal(ask(again, images), ask(old, images))
    again.load_state_dict(copy.deepcopy(old.state_dict()))
    assert torch.equal(ask(again, images), ask(old, images))


@pytest.mark.parametrize('cfg, error, says', [
    ('haed', ValueError, "logits: ImageClassifier has no module 'haed'.*head"),
    (3, TypeError, 'logits must be a module path or a dict'),
    (dict(call=1), TypeError, 'logits must be a module path or a dict')])
def test_taps_that_are_none(cfg, error, says):
    with pytest.raises(error, match=f'KnowledgeFlowHook.{says}'):
        logits_tap(classifier(), cfg)


class Dense(nn.Module):
    """Head with dense logits, like that of a segmentor."""

    def __init__(self, conv_seg=True):
        super().__init__()
        if conv_seg:
            self.conv_seg = nn.Conv2d(2, 2, 1)


@pytest.mark.parametrize('parts, want', [
    (dict(head=nn.Linear(2, 2)), dict(path='head', call=-1)),
    (dict(decode_head=Dense()), dict(path='decode_head.conv_seg', call=-1)),
    (dict(decode_head=nn.ModuleList([Dense(), Dense()])),
     dict(path='decode_head.1.conv_seg', call=-1)),
    (dict(decode_head=Dense(False)), None), (dict(bbox_head=Dense()), None),
    (dict(head=None), None), ({}, None)])
def test_where_logits_are(parts, want):
    network = nn.Module()
    for name, part in parts.items():
        setattr(network, name, part)
    assert find_logits(network) == want


def test_a_student_without_flow_has_no_old_self():
    model = classifier()
    del model.backbone.knowledge_flow
    with pytest.raises(ValueError, match='has 0 backbones of type'):
        OldStudent(model, 'head')
