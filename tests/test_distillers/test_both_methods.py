"""Knowledge Flow's backbone as the student of a distiller: both methods, one
forward pass of each teacher."""

import json
import math

import pytest
import torch
from mmengine.hooks import Hook

from mmkd_rl.flow import flow_of
from mmkd_rl.registry import MODELS
from tests.toy import (
    classifier,
    distiller,
    flow_classifier,
    toy_runner,
    toy_teachers,
)

FLOW = dict(type='KnowledgeFlowHook', interval=1, threshold=0,
            withdraw_from=.5, independent_at=.75, handover_weight=0)


class Count(Hook):
    """Forward passes of teachers' backbones and of the student's head in
    each iteration, and its losses."""

    priority = 'VERY_HIGH'

    def before_run(self, runner):
        self.count = count = {}
        self.calls, self.losses, self.states = [], [], []

        def listen(name, module):
            module.register_forward_hook(
                lambda *_: count.update({name: count.get(name, 0) + 1}))

        for teacher in runner.model.teachers:
            listen(teacher.name, teacher.model.backbone)
        listen('student', runner.model.student.head)

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
    """Also where the strategy looks at the batch a second time, in whichever
    order the hooks are given."""
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
    assert runner.model.weighting.learner.updates == 4
    assert flow_of(runner.model).independent
    plain = MODELS.build(classifier(8, hidden=6)).eval()
    plain.load_state_dict(
        torch.load(tmp_path / 'a' / 'student.pth')['state_dict'])
    saved = torch.load(tmp_path / 'a' / 'epoch_4.pth', weights_only=False)
    runner.model.load_state_dict(saved['state_dict'])
    runner.model.eval()
    assert torch.equal(plain(count.images), runner.model(count.images))


def test_alone_a_step_is_the_distillers(tmp_path, teachers):
    """Bit for bit what the distiller does with a plain student."""
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


def test_lent_features_are_those_of_teachers_of_ones_own(tmp_path, teachers):
    """The same run, whoever runs the teachers."""
    ends = []
    start = str(tmp_path / 'start.pth')
    torch.save(dict(state_dict=MODELS.build(both(teachers)).state_dict()),
               start)
    for folder, own in (('a', 'distiller'), ('b', teachers)):
        runner, count = run(tmp_path / folder, both(teachers, own),
                            load_from=start)
        assert count.calls[0] == dict(t0=1, t1=1, student=2)
        ends.append(runner.model.state_dict())
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
    """MMKD trains through steps on samples of its own, which the teachers
    must see for Knowledge Flow, as long as they take part."""
    runner, count = run(
        tmp_path / 'a', both(teachers, weighting=dict(type='MMKD')),
        [dict(type='MetaWeightingHook'), FLOW])
    assert any(c['t0'] == 2 for c in count.calls[:12])
    assert all(c['t0'] == 1 for c in count.calls[12:])
    assert all(math.isfinite(v) for x in count.losses for v in x.values())
    assert flow_of(runner.model).independent
