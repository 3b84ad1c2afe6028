"""KnowledgeFlowBackbone in the student of a distiller: both methods share one
forward pass of each teacher."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from mmengine.hooks import Hook

from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.records import SeenBatch
from mmkd_rl.registry import MODELS
from tests.toy import (
    CLASSES,
    batch,
    classifier,
    distiller,
    flow_classifier,
    samples,
    toy_runner,
    toy_teachers,
)

FLOW = dict(type='KnowledgeFlowHook', interval=1, threshold=0,
            withdraw_from=.5, independent_at=.75, handover_weight=0)


class Count(Hook):
    """Hook that records the losses of each iteration, and counts forward
    passes of teachers' backbones and of the student's head."""

    priority = 'VERY_HIGH'

    def before_run(self, runner):
        self.count = count = {}
        self.calls, self.losses, self.states = [], [], []

        def listen(name, module):
            module.register_forward_hook(
                lambda *_: count.update({name: count.get(name, 0) + 1}))

        for teacher in runner.model.distillation.teachers:
            listen(teacher.name, teacher.model.backbone)
        listen('student', runner.model.head)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.count:
            self.calls.append(dict(self.count))
        self.count.clear()
        self.states.append({
            n: t.clone() for n, t in runner.model.state_dict().items()})
        self.images = torch.stack(data_batch['inputs'])
        self.labels = data_batch['data_samples']

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append({k: v.item() for k, v in outputs.items()})

    def after_train(self, runner):
        self.calls.append(dict(self.count))


def run(folder, model, hooks=(FLOW, ), **kwargs):
    runner = toy_runner(
        folder, model, epochs=4, hooks=hooks,
        **{**dict(randomness=dict(seed=0), optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=.1))), **kwargs})
    count = Count()
    runner.register_hook(count)
    runner.train()
    return runner, count


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path)


def both(teachers, own='distiller', **kwargs):
    return distiller(teachers, student=flow_classifier(own), **kwargs)


@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('order', [1, -1])
def test_one_forward_pass_of_each_teacher(tmp_path, teachers, when, order):
    """Also if the strategy runs the student a second time on the batch, and
    in any order of the hooks."""
    hooks = [FLOW, dict(type='AgentAlternationHook'),
             dict(type='EMAHook', momentum=.2),
             dict(type='StudentExportHook')]
    runner, count = run(
        tmp_path / 'a',
        both(teachers, weighting=dict(type='MTKDRL', reward_time=when)),
        hooks[::order], validate=True)
    assert len(count.calls) == 16
    for t, calls in enumerate(count.calls):
        # validation (of 4 batches) ends an epoch
        own = calls['student'] - 4 * (t % 4 == 3)
        assert (calls['t0'], calls['t1']) == (1, 1), t
        assert own == 1 + (t < 12) + (when == 'after'), t
    for losses in count.losses:
        parts = {n: v for n, v in losses.items() if n.startswith('loss_')}
        assert set(parts) == {'loss_student', 'loss_logit', 'loss_feature',
                              'loss_dependency', 'loss_kl'}
        assert losses['loss'] == pytest.approx(sum(parts.values()), rel=1e-5)
    assert count.losses[0]['loss_kl'] == 0 < count.losses[5]['loss_kl']
    assert runner.model.distillation.weighting.learner.updates == 4
    assert flow_of(runner.model).independent
    plain = MODELS.build(classifier(8, hidden=6)).eval()
    plain.load_state_dict(
        torch.load(tmp_path / 'a' / 'student.pth')['state_dict'])
    saved = torch.load(tmp_path / 'a' / 'epoch_4.pth', weights_only=False)
    early = torch.load(tmp_path / 'a' / 'epoch_1.pth', weights_only=False)
    # theta_old is the student alone.
    assert {f'backbone.{n}' for n in ('conv.weight', 'hidden.weight')} < set(
        early['mmkd_rl_knowledge_flow']['weights'])
    assert not any('distillation' in n
                   for n in early['mmkd_rl_knowledge_flow']['weights'])
    runner.model.load_state_dict(saved['state_dict'])
    runner.model.eval()
    assert torch.equal(plain(count.images), runner.model(count.images))


def test_alone_a_step_is_the_distillers(tmp_path, teachers):
    """After withdrawal a step equals that of a plain student, bit for bit."""
    runner, count = run(tmp_path / 'a', both(teachers))
    states = [*count.states, runner.model.state_dict()]
    model = MODELS.build(distiller(teachers)).train()
    model.load_state_dict({n: v for n, v in states[15].items()
                           if 'knowledge_flow' not in n})
    optimizer = torch.optim.SGD(model.parameters(), lr=.1)
    losses = model(count.images, count.labels, mode='loss')
    sum(losses.values()).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, states[16][name]), name


@pytest.mark.parametrize('weighting, hook, passes', [
    (dict(type='AverageWeighting'), None, 2),
    (dict(type='MTKDRL', reward_time='after'), 'AgentAlternationHook', 3),
    (dict(type='MMKD'), 'MetaWeightingHook', 2)])
def test_lent_features_are_those_of_teachers_of_ones_own(
        tmp_path, teachers, weighting, hook, passes):
    """Runs are the same whether teachers belong to the distiller or to
    Knowledge Flow, also if the student is run again on a batch."""
    ends = []
    start = str(tmp_path / 'start.pth')
    model = MODELS.build(both(teachers, weighting=weighting))
    torch.save(dict(state_dict=model.state_dict()), start)
    begin = copy.deepcopy(model.distillation.weighting.learner.state_dict()) \
        if hook else None

    def same_learner(runner):
        if hook:
            runner.model.distillation.weighting.learner.load_state_dict(
                copy.deepcopy(begin))

    for folder, own in (('a', 'distiller'), ('b', teachers)):
        runner, count = run(
            tmp_path / folder, both(teachers, own, weighting=weighting),
            [FLOW, *([dict(type=hook)] if hook else [])], load_from=start,
            call=(same_learner, 0))
        assert count.calls[0] == dict(t0=1, t1=1, student=passes)
        ends.append(runner.model.state_dict())
        if hook:
            assert runner.model.distillation.weighting.learner.updates > 1
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_a_teacher_that_flows_no_more_is_still_distilled(tmp_path, teachers):
    def weaken(runner):
        for fusion in flow_of(runner.model).fusions:
            fusion.logits.data[2] = -9.

    runner, count = run(tmp_path / 'a', both(teachers),
                        [dict(FLOW, threshold=.01)], call=(weaken, 2))
    row = json.loads(next((tmp_path / 'a').glob(
        '*/vis_data/scalars.json')).read_text().splitlines()[1])
    assert row['flow/t1'] == 0 < row['flow/t0']
    assert all(c['t1'] == 1 for c in count.calls)


def test_where_the_student_is_looked_at_on_other_images(tmp_path, teachers):
    """MMKD's meta steps use samples of their own, on which Knowledge Flow must
    also run the teachers until their withdrawal."""
    runner, count = run(
        tmp_path / 'a', both(teachers, weighting=dict(type='MMKD')),
        [dict(type='MetaWeightingHook'), FLOW])
    # A meta step every five iterations, with three passes of the student.
    for name in ('t0', 't1'):
        assert [c[name] for c in count.calls] == [
            1 + (t in (4, 9)) for t in range(16)]
    assert [c['student'] for c in count.calls] == [
        1 + (t < 12) + 3 * (t in (4, 9, 14)) for t in range(16)]
    assert all(math.isfinite(v) for x in count.losses for v in x.values())
    assert flow_of(runner.model).independent


# ----------------------------------------------------- one model, by hand

LABELS = torch.arange(6) % CLASSES


@pytest.fixture
def images():
    return torch.randn(6, 3, 4, 4)


def joined(teachers, **options):
    """A model with both methods in training, and its Knowledge Flow."""
    model = MODELS.build(both(teachers)).train()
    hook = KnowledgeFlowHook(**{**dict(kl_weight=1.), **options})
    joint = hook.attach(model, FlowSchedule(8, 8, .1))
    joint.begin(0)
    return model, joint


def shown_to(model):
    """Record the images of each forward pass of the first teacher."""
    shown = []
    next(iter(model.distillation.teachers)).model.backbone \
        .register_forward_hook(lambda m, args, out: shown.append(args[0]))
    return shown


def losses_of(model, images):
    return model(images, samples(LABELS), mode='loss')


@pytest.mark.parametrize('kl', [0., 1.])
@pytest.mark.parametrize('where', ['before', 'behind'])
def test_a_forward_pass_that_failed(teachers, images, where, kl):
    """Features and logits of its batch are not used for the next batch."""
    model, _ = joined(teachers, kl_weight=kl)
    other = images.flip(0) + 1
    want = losses_of(copy.deepcopy(model), other)

    def fail(*_):
        raise MemoryError

    handle = model.backbone.register_forward_pre_hook(fail, prepend=True) \
        if where == 'before' else model.head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        losses_of(model, images)
    handle.remove()
    shown = shown_to(model)
    got = losses_of(model, other)
    assert len(shown) == 1
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert torch.equal(got[name], value), name


def test_validation_with_teachers_sees_its_own_images(teachers, images):
    """Validation between two steps, also after a step that failed."""
    model, _ = joined(teachers)
    other = images.flip(0) + 1
    flow_of(model).fuse_in_eval = True
    want = model.eval()(other, mode='tensor')
    shown = shown_to(model)

    def check():
        del shown[:]
        assert torch.equal(model.eval()(other, mode='tensor'), want)
        assert len(shown) == 1 and torch.equal(shown[0], other)
        model.train()

    model.train()
    losses_of(model, images)
    check()
    handle = model.backbone.register_forward_pre_hook(
        lambda *_: 1 / 0, prepend=True)
    with pytest.raises(ZeroDivisionError):
        losses_of(model, images)
    handle.remove()
    check()


def test_another_look_is_mixed_with_what_the_teachers_said(teachers, images):
    """Teachers are not run for a second forward pass of the student, and lent
    features are released."""
    model, _ = joined(teachers)
    distillation = model.distillation
    given = batch(images, LABELS)
    seen = SeenBatch(given, distillation.task.truth(given),
                     distillation.teachers.run(given))
    alone = replace(seen, teachers=replace(seen.teachers, inner=()))
    other = replace(seen, teachers=replace(
        seen.teachers, inner=distillation.inner_features(
            batch(images + 1, LABELS))))
    shown = shown_to(model)
    looks, counts = [], []
    for one in (seen, alone, other):
        after = distillation.forward_after_step(model, one)
        looks.append(after.student.logits[0])
        counts.append(len(shown))
    assert torch.equal(*looks[:2]) and not torch.equal(looks[0], looks[2])
    assert counts == [0, 1, 1]
    flow_of(model).retire(['t0', 't1'])
    assert distillation.inner_features(given) == ()
    assert len(shown) == 1


def test_two_models_take_turns(teachers, tmp_path, images):
    """Two models with nested forward passes on the same images."""
    folder = tmp_path / 'others'
    folder.mkdir()
    models = [joined(t)[0] for t in (
        teachers, toy_teachers(folder, scale=2.)[::-1])]
    want = [losses_of(copy.deepcopy(m), images) for m in models]
    got = {}

    def second(*_):
        if not got:
            got['second'] = losses_of(models[1], images)

    models[0].backbone.register_forward_hook(second)
    got['first'] = losses_of(models[0], images)
    for name, value in want[0].items():
        assert torch.equal(got['first'][name], value), name
        assert torch.equal(got['second'][name], want[1][name]), name
    assert not torch.equal(want[0]['loss_logit'], want[1]['loss_logit'])


def test_a_copy_made_in_training_goes_its_own_way(teachers, images):
    """A copy, as EMAHook makes it, has its own hooks, flow and theta_old."""
    model, _ = joined(teachers)
    losses_of(model, images)
    twin = copy.deepcopy(model)
    other = images.flip(0) + 1
    want = losses_of(model, other)
    shown = shown_to(model)  # the teachers are the same
    got = losses_of(twin, other)
    assert len(shown) == 1
    for name, value in want.items():
        assert torch.equal(got[name], value), name
    flow_of(twin).retire(['t0', 't1'])
    assert not flow_of(model).independent
    assert twin.distillation.last_step is not model.distillation.last_step
