"""Knowledge Flow in real runs: losses, schedule, retirement, validation."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmkd_rl.engine.hooks import KnowledgeFlowHook
from mmkd_rl.flow import FlowSchedule, flow_of
from mmkd_rl.registry import MODELS
from tests.commands import ROOT, free_port
from tests.test_flow.parts import HOOK, roots, scalars
from tests.toy import (
    WorldDataset,
    classifier,
    flow_classifier,
    samples,
    toy_runner,
    toy_teachers,
)

#: Without momentum, so that a step depends only on the weights.
SGD = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=.3)))
PLAIN = [HOOK]


class Watch(Hook):
    """Hook that records for each iteration the weights before it, the batch,
    the losses, and how often teachers and the student's head ran."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.states, self.inputs, self.labels = [], [], []
        self.losses, self.calls, self.active = [], [], []
        self.strengths = []

    def before_run(self, runner):
        """Count forward passes, also those of copies of the model: functions
        are not copied with it, so that all of them share the counts."""
        self.count = count = {}

        def listen(name, module):
            module.register_forward_hook(
                lambda *_: count.update({name: count.get(name, 0) + 1}))

        flow = flow_of(runner.model)
        for name, network in zip(flow.teacher_names, roots(flow)):
            listen(name, network)
        listen('student', runner.model.head)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.count.clear()
        self.states.append(copied(runner.model.state_dict()))
        self.inputs.append(torch.stack(data_batch['inputs']))
        self.labels.append(data_batch['data_samples'])

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.calls.append(dict(self.count))
        self.losses.append({k: v.item() for k, v in outputs.items()})
        flow = flow_of(runner.model)
        self.strengths.append(flow.strength)
        self.active.append(flow.active_teachers)


def copied(state):
    return {n: t.clone() for n, t in state.items()}


def train(folder, model, hook=None, **kwargs):
    """Run 16 iterations in 4 epochs with :class:`Watch`."""
    watch = Watch()
    hooks = [] if hook is False else [dict(HOOK, **(hook or {}))]
    runner = toy_runner(
        folder, model, hooks=[*hooks, *kwargs.pop('more', ())],
        **{**dict(epochs=4, randomness=dict(seed=0)), **SGD, **kwargs})
    runner.register_hook(watch)
    runner.train()
    return runner, watch


def softmax(w):
    e = np.exp(w.double().numpy() - w.double().numpy().max())
    return e / e.sum()


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path)


# ------------------------------------------------------------------- losses


def test_losses_are_those_of_the_formulas_and_logged(tmp_path, teachers):
    """Eq. (5) computed by hand; the total is the sum of the losses; weights in
    the log sum to 1."""
    _, watch = train(tmp_path / 'a', flow_classifier(teachers),
                     dict(dependency_weight=.4, kl_weight=.5))
    for t, losses in enumerate(watch.losses):
        assert losses['loss'] == pytest.approx(
            losses['loss_student'] + losses['loss_dependency'] +
            losses['loss_kl'], rel=1e-6)
        w = [v for n, v in watch.states[t].items() if n.endswith('.logits')]
        assert len(w) == 2
        eq5 = -np.mean([math.log(softmax(v)[0]) for v in w])
        assert losses['loss_dependency'] == pytest.approx(
            .4 * t / 12 * eq5 if t < 12 else 0, rel=1e-5)
    assert watch.losses[0]['loss_dependency'] == 0
    assert watch.losses[0]['loss_kl'] == 0  # theta_old is theta
    assert max(x['loss_kl'] for x in watch.losses) > 1e-5
    assert all(x['loss_kl'] == 0 for x in watch.losses[12:])
    logs = scalars(tmp_path / 'a')
    assert len(logs) == 8
    for line in logs:
        assert {n for n in line if n.startswith('flow/')} == {
            'flow/student', 'flow/t0', 'flow/t1', 'flow/hidden/student',
            'flow/hidden/t0:conv', 'flow/hidden/t1:conv',
            'flow/conv/student', 'flow/conv/t0:conv', 'flow/conv/t1:conv'}
        for names in ('flow/{}', 'flow/hidden/{}:conv', 'flow/conv/{}:conv'):
            names = [names.format(n) for n in ('student', 't0', 't1')]
            names[0] = names[0].replace('student:conv', 'student')
            assert sum(line[n] for n in names) == pytest.approx(1)
        assert line['flow/t1'] == pytest.approx(
            (line['flow/hidden/t1:conv'] + line['flow/conv/t1:conv']) / 2)
    assert 0 < logs[0]['flow/t0'] < 1 and logs[-1]['flow/t0'] == 0


@pytest.mark.parametrize('old, momentum', [('previous', 0), ('average', .7)])
@pytest.mark.parametrize('counts', [1, 3])
def test_kl_is_to_theta_old(tmp_path, teachers, old, momentum, counts):
    """Eq. (6) from recorded weights, with theta_old computed by hand
    (Sec. 7.6): with accumulated gradients only optimiser steps count."""
    optim = dict(SGD['optim_wrapper'], accumulative_counts=counts)
    cfg = flow_classifier(teachers)
    _, watch = train(
        tmp_path / 'a', cfg,
        dict(old=old, old_momentum=.7, kl_weight=2., withdraw_from=.4),
        optim_wrapper=optim)
    model = MODELS.build(cfg).train()
    flow = flow_of(model)

    def probabilities(state, t, strength):
        model.load_state_dict(state)
        flow.strength = strength
        with torch.no_grad():
            logits = model(watch.inputs[t]).double().numpy()
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    theta_old, strength = watch.states[0], 1.
    for t in range(12):
        p = probabilities(watch.states[t], t, watch.strengths[t])
        q = probabilities(theta_old, t, strength)
        kl = np.mean([sum(a * math.log(a / b) for a, b in zip(x, y))
                      for x, y in zip(p, q)])
        assert watch.losses[t]['loss_kl'] == pytest.approx(
            2 * kl, rel=1e-3, abs=3e-7), t
        if (t + 1) % counts == 0:
            now, strength = watch.states[t], watch.strengths[t]
            theta_old = {
                n: momentum * v + (1 - momentum) * now[n]
                if v.is_floating_point() else now[n]
                for n, v in theta_old.items()}
    assert max(x['loss_kl'] for x in watch.losses) > 1e-4


@pytest.mark.parametrize('every', [1, 3])
def test_one_more_forward_pass_where_kl_is_on(tmp_path, teachers, every):
    """The KL term adds one forward pass of the student; teachers are run once
    for a batch with and without it."""
    _, watch = train(tmp_path / 'a', flow_classifier(teachers),
                     dict(kl_interval=every))
    for t, calls in enumerate(watch.calls):
        on = t % every == 0 and t < 12
        assert calls['student'] == 1 + on, t
        assert calls.get('t0', 0) == calls.get('t1', 0) == (t < 12), t
        assert t >= 12 or ('loss_kl' in watch.losses[t]) == on, t


def test_no_kl_term(tmp_path, teachers):
    runner, watch = train(tmp_path / 'a', flow_classifier(teachers),
                          dict(kl_weight=0))
    assert all(c['student'] == 1 for c in watch.calls)
    assert not any('loss_kl' in x for x in watch.losses)
    assert 'mmkd_rl_knowledge_flow' not in torch.load(
        tmp_path / 'a' / 'epoch_1.pth', weights_only=False)


def test_theta_old_sees_as_in_training(tmp_path):
    """Batch norm uses the batch's statistics, also after a validation. Dropout
    is off, as its noise must not count as a change of the prediction."""
    resnet = dict(type='mmkd_rl.CifarResNet', depth=8)
    cfg = classifier(64)
    cfg['backbone'] = dict(
        type='mmkd_rl.KnowledgeFlowBackbone', student=resnet, probe_size=16,
        teachers=[dict(name='t', config=resnet, checkpoint='untrained')])
    model = MODELS.build(cfg).eval()
    dropout = torch.nn.Dropout(0.)
    model.head.fc = torch.nn.Sequential(dropout, model.head.fc)
    hook = KnowledgeFlowHook(kl_weight=1., handover_weight=0)
    joint = hook.attach(model, FlowSchedule(8, 8, .1))
    model.train()
    inputs = torch.randn(4, 3, 16, 16)
    labels = samples(torch.arange(4))

    def kl():
        joint.begin(0)
        losses = model(inputs, labels, mode='loss')
        return losses['loss_kl'].item()

    assert abs(kl()) < 1e-6
    dropout.p = .9
    for module in joint.old._own.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = .9
    assert kl() > 1e-3
    old = [joint.old.logits(inputs)[0] for _ in range(2)]
    assert torch.equal(*old)


# ------------------------------------------------------------- independence


@pytest.mark.parametrize('clip', [None, dict(max_norm=.05)])
def test_alone_a_step_is_the_plain_students(tmp_path, teachers, clip):
    """After withdrawal a step equals the plain student's, bit for bit, for
    different models."""
    optim = dict(SGD['optim_wrapper'], clip_grad=clip)
    runner, watch = train(tmp_path / 'a', flow_classifier(teachers),
                          dict(withdraw_from=.25, independent_at=.5),
                          optim_wrapper=optim)
    assert watch.strengths[:4] == [1.] * 4
    assert watch.strengths[4:9] == [1., .75, .5, .25, 0.]
    states = [*watch.states, runner.model.state_dict()]
    for t in range(8, 16):
        plain = MODELS.build(classifier(8, hidden=6)).train()
        plain.load_state_dict({n: v for n, v in states[t].items()
                               if 'knowledge_flow' not in n})
        optimizer = torch.optim.SGD(plain.parameters(), lr=.3)
        losses = plain(watch.inputs[t], watch.labels[t], mode='loss')
        losses['loss'].backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), .05)
        optimizer.step()
        assert watch.losses[t]['loss'] == losses['loss'].item()
        for name, value in plain.state_dict().items():
            assert torch.equal(value, states[t + 1][name]), (t, name)
    flow = flow_of(runner.model)
    assert flow.independent and flow.active_teachers == ()
    assert [w.tolist() for w in flow.weights()] == [[1, 0, 0]] * 2
    assert not any('t0' in c or 't1' in c for c in watch.calls[8:])


def test_alone_at_the_very_end_only(tmp_path, teachers):
    runner, watch = train(tmp_path / 'a', flow_classifier(teachers),
                          dict(withdraw_from=1., independent_at=1.))
    assert watch.strengths == [1.] * 16
    assert all('t0' in c for c in watch.calls)
    flow = flow_of(runner.model)
    assert [w.tolist() for w in flow.weights()] == [[1, 0, 0]] * 2
    runner.model.train()  # the hook is removed
    assert set(runner.model(watch.inputs[0], watch.labels[0],
                            mode='loss')) == {'loss'}


def weaken(*weights):
    """Hook that sets w of both layers."""
    def function(runner):
        for fusion, w in zip(flow_of(runner.model).fusions, weights):
            fusion.logits.data.copy_(torch.tensor(w))
    return function


def test_a_weak_teacher_is_retired(tmp_path, teachers):
    """t1 is below 0.01 in both layers from iteration 5 on."""
    weak = [0., 0., -9.]
    runner, watch = train(
        tmp_path / 'a', flow_classifier(teachers), False,
        more=[dict(HOOK, interval=2, threshold=.01)],
        call=(weaken(weak, weak), 5), log_level='INFO')
    assert [c.get('t1', 0) for c in watch.calls] == [1] * 6 + [0] * 10
    assert [c.get('t0', 0) for c in watch.calls] == [1] * 12 + [0] * 4
    assert watch.active[4] == ('t0', 't1') and watch.active[6] == ('t0', )
    p = softmax(watch.states[6]['backbone.knowledge_flow.fusions.0.logits'])
    assert p[2] < .01
    logs = scalars(tmp_path / 'a')[3]  # iteration 8
    assert logs['flow/t1'] == logs['flow/conv/t1:conv'] == 0
    assert logs['flow/t0'] + logs['flow/student'] == pytest.approx(1)
    text = next((tmp_path / 'a').glob('*/*.log')).read_text()
    assert 'iteration 6: all weights of t1 are below 0.01' in text
    assert 'student is alone from iteration 12 on' in text


def test_one_strong_link_is_enough(tmp_path, teachers):
    runner, watch = train(
        tmp_path / 'a', flow_classifier(teachers), False,
        more=[dict(HOOK, interval=2, threshold=.01)],
        call=(weaken([0., 0., -9.], [0., 0., 0.]), 2))
    assert all(c.get('t1') == 1 for c in watch.calls[:12])


def test_both_weak(tmp_path, teachers):
    """The student is alone earlier than scheduled, and the KL term ends."""
    weak = [0., -9., -9.]
    runner, watch = train(
        tmp_path / 'a', flow_classifier(teachers), False,
        more=[dict(HOOK, threshold=.01)],
        call=(weaken(weak, weak), 3))
    assert [set(c) for c in watch.calls[4:]] == [{'student'}] * 12
    assert all(c['student'] == 1 for c in watch.calls[4:])
    assert all(x['loss_kl'] == x['loss_dependency'] == 0
               for x in watch.losses[4:])
    assert 'mmkd_rl_knowledge_flow' not in torch.load(
        tmp_path / 'a' / 'epoch_2.pth', weights_only=False)


# --------------------------------------------------------------- validation


def accuracy(model):
    data = WorldDataset(32)
    with torch.no_grad():
        guess = model.eval()(data.images).argmax(1)
    return 100 * (guess == data.labels).float().mean().item()


@pytest.mark.parametrize('more', [(), [dict(type='EMAHook', momentum=.4)]],
                         ids=['last', 'average'])
@pytest.mark.parametrize('validate', ['student', 'fused', 'both'])
def test_validation(tmp_path, teachers, validate, more):
    """Validation uses the model that the checkpoint contains."""
    folder, cfg = tmp_path / 'a', flow_classifier(teachers)
    runner = toy_runner(
        folder, cfg, epochs=2, validate=True, randomness=dict(seed=0),
        hooks=[*more, dict(HOOK, validate=validate)],
        **SGD)
    counts = []
    for network in roots(flow_of(runner.model)):
        network.register_forward_hook(
            lambda *_: counts.append(runner.model.training))
    runner.train()
    # Two of the four validations (of 4 batches) are with teachers; after
    # the second epoch there are none.
    assert counts.count(False) == (0 if validate == 'student' else 2 * 4)
    model = MODELS.build(cfg)
    model.load_state_dict(
        torch.load(folder / 'epoch_1.pth', weights_only=False)['state_dict'])
    flow = flow_of(model)
    alone, flow.fuse_in_eval, flow.strength = accuracy(model), True, 1.
    fused = accuracy(model)
    assert abs(fused - alone) > 5  # can be told apart
    line = next(x for x in scalars(folder) if 'accuracy/top1' in x)
    assert line['accuracy/top1'] == pytest.approx(
        fused if validate == 'fused' else alone)
    assert line.get('fused/accuracy/top1') == (
        pytest.approx(fused) if validate == 'both' else None)
    if validate == 'both':
        line = [x for x in scalars(folder) if 'accuracy/top1' in x][-1]
        assert line['accuracy/top1'] == line['fused/accuracy/top1']
    assert not flow_of(runner.model).fuse_in_eval


@pytest.mark.parametrize('validate', ['fused', 'both'])
def test_validation_alone(tmp_path, teachers, validate):
    """Validation without training uses the student alone."""
    cfg = flow_classifier(teachers)
    model = MODELS.build(cfg)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    runner = toy_runner(
        tmp_path, cfg, validate=True, load_from=str(tmp_path / 'a.pth'),
        hooks=[dict(type='KnowledgeFlowHook', validate=validate)])
    assert runner.val() == {'accuracy/top1': pytest.approx(accuracy(model))}


# ---------------------------------------------------------------- refusals


def test_training_without_the_hook(tmp_path, teachers):
    with pytest.raises(RuntimeError, match="trained without a schedule.*add "
                       "custom_hooks=.*'mmkd_rl.KnowledgeFlowHook'"):
        toy_runner(tmp_path, flow_classifier(teachers)).train()


def test_nothing_flows(tmp_path):
    with pytest.raises(ValueError, match='ImageClassifier has 0 backbones'):
        toy_runner(tmp_path, classifier(), hooks=PLAIN).train()


def test_a_distillers_teachers_without_one(tmp_path):
    model = flow_classifier('distiller')
    with pytest.raises(ValueError, match='model is a ImageClassifier; give '
                       'the backbone teachers'):
        toy_runner(tmp_path / 'a', model, hooks=PLAIN).train()
    with pytest.raises(RuntimeError, match='trained outside of one'):
        toy_runner(tmp_path / 'b', model).train()


@pytest.mark.parametrize('option, message', [
    (dict(dependency_weight=-1), 'dependency_weight must be >= 0'),
    (dict(dependency_weight=math.inf), 'dependency_weight.*got inf'),
    (dict(dependency_weight=math.nan), 'dependency_weight.*got nan'),
    (dict(kl_weight=-.1), r'kl_weight must be >= 0.*got -0\.1'),
    (dict(kl_interval=0), 'kl_interval must be >= 1, got 0'),
    (dict(kl_interval=1.5), 'kl_interval must be a whole number'),
    (dict(interval=0), 'interval must be >= 1, got 0'),
    (dict(old='last'), "old must be one of.*'average'.*got 'last'"),
    (dict(old_momentum=1), r'old_momentum must be in \[0, 1\), got 1'),
    (dict(threshold=1), r'threshold must be in \[0, 1\), got 1'),
    (dict(threshold=-.1), r'threshold must be in \[0, 1\), got -0\.1'),
    (dict(validate='all'), "validate must be one of.*'both'.*got 'all'"),
    (dict(withdraw_from=-.1), 'withdraw_from must be >= 0, got -0.1'),
    (dict(withdraw_from=math.nan), 'withdraw_from must be a number.*got nan'),
    (dict(independent_at='end'), "independent_at must be a num.*got 'end'"),
    (dict(independent_at=True), 'independent_at must be a number.*got True'),
    (dict(logits=3), 'logits must be a string or a dict or None, got 3'),
])
def test_options_out_of_range(option, message):
    with pytest.raises(ValueError, match='KnowledgeFlowHook.' + message):
        KnowledgeFlowHook(**option)


@pytest.mark.parametrize('option, error, message', [
    (dict(independent_at=1.2), ValueError, 'independent_at=1.2.*still have'),
    (dict(independent_at=5), ValueError,
     r'independent_at=5 must be 0\.\.4 epochs.*still have'),
    (dict(withdraw_from=.8), ValueError,
     'withdraw_from=0.8 is later than independent_at=0.75'),
    (dict(withdraw_from=3, independent_at=2), ValueError, 'later than'),
    (dict(logits='nowhere'), ValueError,
     "KnowledgeFlowHook.logits: ImageClassifier has no module 'nowhere'"),
    (dict(logits=dict(call=1)), TypeError,
     'KnowledgeFlowHook.logits must be a module path'),
])
def test_schedules_that_do_not_fit(tmp_path, teachers, option, error,
                                   message):
    """The error is raised before the first iteration."""
    watch = Watch()
    runner = toy_runner(
        tmp_path / 'a', flow_classifier(teachers), epochs=4,
        hooks=[dict(HOOK, **option)])
    runner.register_hook(watch)
    with pytest.raises(error, match=message):
        runner.train()
    assert watch.states == []


@pytest.mark.parametrize('epochs, option, begin, end', [
    (4, dict(), 8, 12),
    (4, dict(withdraw_from=1, independent_at=2), 4, 8),
    (1, dict(withdraw_from=0, independent_at=1), 0, 4),
    (4, dict(withdraw_from=1., independent_at=4), 16, 16),
    (4, dict(withdraw_from=0., independent_at=0.), 0, 0),
])
def test_schedule_in_epochs(tmp_path, teachers, epochs, option, begin, end):
    runner, watch = train(tmp_path / 'a', flow_classifier(teachers), option,
                          epochs=epochs)
    ran = [t for t, c in enumerate(watch.calls) if 't0' in c]
    assert ran == list(range(end))
    assert watch.strengths[:begin] == [1.] * begin
    assert all(s < 1 for s in watch.strengths[begin + 1:])


def test_schedule_in_iterations(tmp_path, teachers):
    runner, watch = train(
        tmp_path / 'a', flow_classifier(teachers),
        dict(withdraw_from=3, independent_at=5),
        train_cfg=dict(by_epoch=False, max_iters=7),
        train_dataloader=dict(
            batch_size=8, num_workers=0,
            dataset=dict(type='mmkd_rl.WorldDataset'),
            sampler=dict(type='InfiniteSampler')),
        default_hooks=dict(logger=dict(type='LoggerHook'),
                           checkpoint=dict(type='CheckpointHook',
                                           by_epoch=False)))
    assert watch.strengths == [1, 1, 1, 1, .5, 0, 0]


# ------------------------------------------------------- together with others


def test_with_everything_else(tmp_path, teachers):
    """Together with EMA, mixed precision, gradient clipping, export and the
    picture."""
    folder = tmp_path / 'a'
    runner, watch = train(
        folder, flow_classifier(teachers), dict(old='average'),
        validate=True,
        more=[dict(type='EMAHook', momentum=.3),
              dict(type='FlowVisualizationHook', interval=2),
              dict(type='StudentExportHook')],
        optim_wrapper=dict(
            type='BFloat16OptimWrapper', precision='bfloat16',
            clip_grad=dict(max_norm=1.),
            optimizer=dict(type='SGD', lr=.3)))
    assert all(math.isfinite(v) for x in watch.losses for v in x.values())
    assert watch.losses[0]['loss_kl'] == 0 < watch.losses[5]['loss_kl']
    checkpoint = torch.load(folder / 'epoch_4.pth', weights_only=False)
    exported = torch.load(folder / 'student.pth')['state_dict']
    plain = MODELS.build(classifier(8, hidden=6))
    plain.load_state_dict(exported)
    for name, value in exported.items():  # the average
        assert torch.equal(value, checkpoint['state_dict'][name])
        assert not torch.equal(value, runner.model.state_dict()[name])
    assert (folder / 'knowledge_flow.png').exists()


def test_a_new_run_from_a_run(tmp_path, teachers):
    """``load_from`` loads only weights: all teachers take part again. From the
    checkpoint of a plain network the student's weights are loaded."""
    cfg = flow_classifier(teachers)
    first, _ = train(tmp_path / 'a', cfg)
    path = str(tmp_path / 'a' / 'epoch_4.pth')
    second, watch = train(tmp_path / 'b', cfg, load_from=path)
    assert 't0' in watch.calls[0] and 't0' not in watch.calls[-1]
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, watch.states[0][name]) or \
            name.endswith('active'), name
    assert flow_of(second.model).independent
    plain = MODELS.build(classifier(8, hidden=6))
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    _, watch = train(tmp_path / 'c', cfg, epochs=1,
                     load_from=str(tmp_path / 'plain.pth'))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watch.states[0][name]), name


def test_two_processes(tmp_path, teachers):
    """With retirement and withdrawal both processes have the same weights, and
    those of one process with the doubled batch (the mean over the batch is the
    mean of the processes' means; there is no batch norm)."""
    model = MODELS.build(flow_classifier(teachers))
    for fusion in flow_of(model).fusions:
        fusion.logits.data[2] = -9.
    start = str(tmp_path / 'start.pth')
    torch.save(dict(state_dict=model.state_dict()), start)
    common = dict(
        default_scope='mmkd_rl', load_from=start, randomness=dict(seed=5),
        model=flow_classifier(teachers),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.3)))
    hook = dict(HOOK, interval=2, kl_weight=2., threshold=.01,
                dependency_weight=.5, old='average')
    config = dict(
        common,
        custom_imports=dict(imports=['mmkd_rl', 'tests.toy']),
        train_dataloader=dict(
            batch_size=4, num_workers=0,
            dataset=dict(type='mmkd_rl.WorldDataset', size=32),
            sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        custom_hooks=[hook, dict(type='StudentExportHook'),
                      dict(type='DumpHook', folder=str(tmp_path))])
    path, work = tmp_path / 'config.py', tmp_path / 'work'
    path.write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
         f'--master_port={free_port()}', str(ROOT / 'tools' / 'train.py'),
         str(path), '--work-dir', str(work), '--launcher', 'pytorch'],
        cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT),
                           OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
                           MPLBACKEND='Agg'),
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f'rank{r}.pth')['model']
                     for r in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    active = 'backbone.knowledge_flow.active'
    assert [torch.load(work / f'epoch_{e}.pth', weights_only=False)[
        'state_dict'][active].tolist() for e in (1, 4)] == [
            [True, False], [False, False]]
    assert (work / 'student.pth').exists()
    one = toy_runner(tmp_path / 'one', epochs=4, hooks=[hook], **common)
    one.train()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
        if name.startswith('backbone.conv'):
            assert not torch.allclose(value, model.state_dict()[name])


@pytest.mark.parametrize('hooks, start, message', [
    ([HOOK, HOOK], None, 'more than once'),
    ([dict(HOOK, threshold=.4)], None, r'threshold=0.4: .* is 0.333, below '
     'the threshold, so all would be removed at the first check'),
    ([dict(HOOK, threshold=.01)], .99,
     r'lower the threshold, or the student_weight'),
])
def test_refused_before_training(tmp_path, teachers, hooks, start, message):
    model = flow_classifier(teachers)
    model['backbone']['student_weight'] = start
    runner = toy_runner(tmp_path, model, hooks=hooks)
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


def test_numbers_and_backbones_are_asked_for(teachers):
    with pytest.raises(TypeError, match="dependency_weight.*'0.1'"):
        KnowledgeFlowHook(dependency_weight='0.1')
    cfg = flow_classifier(teachers)['backbone']
    with pytest.raises(TypeError, match="student_weight.*'half'"):
        MODELS.build(dict(cfg, student_weight='half'))
    with pytest.raises(TypeError, match='ImageClassifier is a whole model'):
        MODELS.build(dict(cfg, student=classifier()))
    missing = [dict(teachers[0], checkpoint='nowhere.pth')]
    with pytest.raises(FileNotFoundError,
                       match=r'model\.backbone\.teachers\.0\.checkpoint'):
        MODELS.build(dict(cfg, teachers=missing))
