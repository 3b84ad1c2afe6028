"""MMKD's meta step in real runs: it learns, resumes, has no side effects."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_rl.engine.hooks import MetaWeightingHook
from mmkd_rl.engine.optim_wrapper import BFloat16OptimWrapper
from mmkd_rl.registry import MODELS
from mmkd_rl.weighting import Student
from mmkd_rl.weighting.mmkd import inner_student
from mmkd_rl.weighting.mmkd.learner import InnerSteps
from tests.test_engine.test_resume import Killed, kill, learner_of, same
from tests.toy import (
    CLASSES,
    World,
    classifier,
    distiller,
    samples,
    teacher_file,
    toy_runner,
    toy_teachers,
)

HOOK = dict(type='MetaWeightingHook', interval=2)


def build(folder, count=2, student=None, hard_share=.5, teachers=None,
          weighting=None, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        distiller(
            teachers or toy_teachers(folder, count),
            student=student or classifier(8, hidden=6),
            weighting=dict(
                type='MMKD', hard_share=hard_share, **(weighting or {})),
            **kwargs)).train()


def wrapper(model, kind=OptimWrapper, **cfg):
    cfg = dict(dict(lr=.05, momentum=.9), **cfg)
    return kind(torch.optim.SGD(model.parameters(), **cfg))


def student(model, optim):
    return Student(model, model.distillation, optim)


def meta_step(model, optim):
    return learner_of(model).update(student(model, optim))


def step(model, optim, batch=None, targets=samples):
    """Run an iteration as the runner and the hook do."""
    images, labels = batch or World().batch(8)
    with optim.optim_context(model):
        losses = model(images, targets(labels), mode='loss')
    optim.update_params(sum(losses.values()))
    learner_of(model).observe(model.distillation.last_step,
                              student(model, optim))


def resnet():
    """A student with batch norm."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmkd_rl.CifarResNet', depth=8),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=CLASSES,
            in_channels=64))


def snapshot(model, optim):
    return copy.deepcopy([
        model.state_dict(),
        optim.state_dict(),
        [p.grad for p in model.parameters()],
        [p.requires_grad for p in model.parameters()]
    ])


@pytest.mark.parametrize('ce_step', [False, True])
def test_nothing_of_the_student_changes(tmp_path, ce_step):
    model = build(
        tmp_path, student=resnet(), weighting=dict(ce_step=ce_step))
    optim = wrapper(model)
    for _ in range(2):
        step(model, optim)
    before = snapshot(model, optim)
    networks = copy.deepcopy(learner_of(model).networks.state_dict())
    logged = meta_step(model, optim)
    same(before, snapshot(model, optim))
    assert logged['skipped'] == 0 and logged['grad_norm'] > 0
    after = learner_of(model).networks.state_dict()
    assert any(not torch.equal(networks[n], after[n]) for n in after)


def test_the_gradient_through_a_real_student(tmp_path, monkeypatch):
    """Compared with finite differences of the same meta step, with batch norm
    and projectors, for the networks' last biases. In float64, so that small
    differences do not cross the kink of a ReLU."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    model = build(tmp_path, student=resnet()).double()
    optim = wrapper(model, lr=.02)
    images, labels = World().batch(8)
    step(model, optim, (images.double(), labels))
    learner = learner_of(model)
    found = {}

    def keep(gradients):
        found['all'] = [g.clone() for g in gradients]
        return True, gradients[0].norm()

    learner.step = keep
    torch.manual_seed(0)
    meta_step(model, optim)
    gradients = dict(
        zip((n for n, _ in learner.networks.named_parameters()),
            found['all']))
    for kind in ('logit', 'feature'):
        bias = learner.networks[kind].last.bias
        gradient = gradients[f'{kind}.last.bias']
        assert gradient.abs().max() > 1e-6
        # The weights sum to one.
        assert gradient.sum().abs() < 1e-2 * gradient.abs().max() + 1e-7
        ends = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                bias[0] += shift
            torch.manual_seed(0)
            ends.append(meta_step(model, optim)['loss'])
            with torch.no_grad():
                bias[0] -= shift
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(
            gradient[0].item(), rel=1e-3)


def right_and_loud(folder, count, seed):
    """Teachers: the first is right, the others are sure of random answers."""
    world = World(seed)
    return world, [
        dict(
            name=f't{i}',
            config=classifier(CLASSES),
            checkpoint=teacher_file(
                folder / f't{i}.pth',
                world.noise_weights() if i else world.prototypes,
                (24 if i else 6) * torch.eye(CLASSES)))
        for i in range(count)
    ]


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_finds_the_teacher_that_is_right(tmp_path, seed):
    """With all default options but the seed; equal weights would be 0.25.
    Feature weights are not tested: here they depend on the projectors' initial
    weights."""
    world, teachers = right_and_loud(tmp_path, 4, seed)
    model = build(tmp_path, teachers=teachers, hard_share=.25)
    model.distillation.weighting.learner.has_hook = True
    optim = wrapper(model)
    for i in range(150):
        step(model, optim, world.batch(64))
        if i % 5 == 4:
            meta_step(model, optim)
    model(*(f(x) for f, x in zip((lambda x: x, samples), world.batch(500))),
          mode='loss')
    weights = model.distillation.last_step.weights
    assert weights.logit[:, 0].mean() > .5
    assert (weights.feature.mean(0) - .25).abs().max() > .01  # trained


def test_the_rates_are_the_students_or_given(tmp_path, monkeypatch):
    seen = []
    model = build(tmp_path)
    first, _ = model.distillation.terms[1].projectors
    own = [p for n, p in model.named_parameters()
           if not n.startswith('distillation.')]
    optim = OptimWrapper(
        torch.optim.SGD([
            dict(params=own, lr=.1),
            dict(params=first.parameters(), lr=.2)
        ]))
    step(model, optim)
    monkeypatch.setattr(learner_of(model), 'meta_losses',
                        lambda o, p, rates: seen.append(rates) or
                        (torch.zeros(()), sum(
                            p.sum()
                            for p in learner_of(model).parameters())))
    meta_step(model, optim)
    place = 'distillation.terms.1.projectors'
    assert seen[0] == {
        n: .2 if n.startswith(f'{place}.0.') else
        0. if n.startswith(f'{place}.1.') else .1  # not in any optimiser
        for n, _ in model.named_parameters()
    }
    assert set(seen[0].values()) == {.1, .2, 0.}
    learner_of(model).steps = InnerSteps(lr=.3)
    meta_step(model, optim)
    assert set(seen[1].values()) == {.3}


@pytest.mark.parametrize('count, size', [(1, 8), (2, 1), (1, 1)])
def test_one_teacher_and_one_sample(tmp_path, count, size):
    plain = dict(feature_loss=None)  # batch norm needs two values
    model = build(tmp_path, count, **plain)
    optim = wrapper(model)
    for _ in range(3):
        step(model, optim, World().batch(size))
        logged = meta_step(model, optim)
    assert all(p.isfinite().all()
               for p in learner_of(model).parameters())
    assert (logged == {}) == (count == 1)


def test_soft_targets_and_mixed_batches(tmp_path):
    """Mixup is applied to every second batch."""
    model = build(tmp_path)
    optim = wrapper(model)

    def soft(labels):
        return [
            s.set_gt_score(.9 * F.one_hot(s.gt_label[0], CLASSES) + .02)
            for s in samples(labels)
        ]

    for targets in (soft, soft, samples, samples, soft):
        step(model, optim, targets=targets)
        assert meta_step(model, optim)['skipped'] == 0
    assert learner_of(model).buffer.draw(2).targets.shape == (2, CLASSES)


def test_teachers_with_other_classes(tmp_path):
    """Weights of teachers that do not know a class are left out in meta steps
    as in training."""
    teachers = toy_teachers(tmp_path)
    teachers[1]['class_map'] = [0, 1, 2, -1, -1]
    model = build(tmp_path, teachers=teachers)
    optim = wrapper(model)
    step(model, optim)
    assert meta_step(model, optim)['skipped'] == 0


@MODELS.register_module(force=True)
class ToyAttention(BaseModule):
    """Network with attention between patches; fused attention has no second
    derivative."""

    def __init__(self, width=8, mode='attention', init_cfg=None):
        super().__init__(init_cfg)
        self.embed = nn.Conv2d(3, width, 2, 2)
        self.mode = mode

    def forward(self, x):
        x = self.embed(x)
        if self.mode == 'attention':
            tokens = x.flatten(2).transpose(1, 2)[:, None]
            x = F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0]
            return (x.transpose(1, 2).unflatten(2, (2, 2)), )
        if self.mode == 'checkpoint':
            return (checkpoint(torch.tanh, x, use_reentrant=False), )
        return (Once.apply(x), )


class Once(torch.autograd.Function):
    """The function x^2 without a second derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * slope * ctx.saved_tensors[0]


def toy_attention(mode):
    student = classifier(8)
    student['backbone'] = dict(type='mmkd_rl.ToyAttention', mode=mode)
    return student


def test_students_with_fused_attention(tmp_path):
    model = build(tmp_path, student=toy_attention('attention'))
    optim = wrapper(model)
    step(model, optim)
    assert meta_step(model, optim)['grad_norm'] > 0


@pytest.mark.parametrize('mode, message', [
    ('checkpoint', 'MMKD.*activation_checkpointing.*with_cp.*off'),
    ('once', 'MMKD needs second derivatives.*another strategy')])
def test_students_without_second_derivatives(tmp_path, mode, message):
    model = build(tmp_path, student=toy_attention(mode))
    optim = wrapper(model)
    step(model, optim)
    with pytest.raises(RuntimeError, match=message):
        meta_step(model, optim)


def test_mixed_precision(tmp_path):
    """In bfloat16 the gradient has the direction of that in float32; float16,
    in which small gradients vanish, is not used."""
    found = []
    for kind in (OptimWrapper, BFloat16OptimWrapper):
        # All samples, so that rounding does not choose others.
        model = build(tmp_path, hard_share=1.)
        optim = wrapper(model, kind)
        step(model, optim)
        learner_of(model).step = lambda g: (
            found.append(torch.cat([x.flatten() for x in g])) or
            (True, g[0].norm()))
        torch.manual_seed(0)
        meta_step(model, optim)
        assert found[-1].dtype == torch.float32
    assert F.cosine_similarity(*found, dim=0) > .9
    with torch.autocast('cpu', torch.float16), \
            inner_student._without_half('cpu'):
        assert not torch.is_autocast_enabled('cpu')
    with torch.autocast('cpu', torch.bfloat16), \
            inner_student._without_half('cpu'):
        assert torch.get_autocast_dtype('cpu') == torch.bfloat16
        assert torch.is_autocast_enabled('cpu')


def test_gradients_are_averaged_over_processes(tmp_path, monkeypatch):
    """Another process has the opposite gradient: no weight changes."""

    def opposite(gradients, op):
        assert op == 'mean'
        for g in gradients:
            g += -g
            g /= 2

    monkeypatch.setattr(
        'mmkd_rl.weighting.mmkd.learner.dist.all_reduce_params', opposite)
    model = build(tmp_path)
    optim = wrapper(model)
    step(model, optim)
    before = copy.deepcopy(learner_of(model).networks.state_dict())
    assert meta_step(model, optim)['grad_norm'] == 0
    same(before, learner_of(model).networks.state_dict())


def test_the_networks_move_and_are_shared_by_copies(tmp_path):
    model = build(tmp_path)
    learner = learner_of(model)
    twin = copy.deepcopy(model)
    assert learner_of(twin) is learner
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in learner.parameters()}
    assert not any('weighting' in n for n in model.state_dict())
    optim = wrapper(model)
    step(model, optim)
    meta_step(model, optim)
    model.double()
    assert all(p.dtype == torch.float64 for p in learner.parameters())
    images, labels = World().batch(8)
    step(model, optim, (images.double(), labels))
    assert meta_step(model, optim)['skipped'] == 0


# --- runs --------------------------------------------------------------------

HOOKS: list = [
    # does not divide the epoch's five iterations
    dict(type='MetaWeightingHook', interval=3),
    dict(type='RandomStateHook'),
    dict(type='EMAHook', momentum=.1),
    dict(type='WeightVisualizationHook', interval=3),
    dict(type='StudentExportHook'),
]


def run(work_dir, teachers, hooks=HOOKS, weighting=None, **kwargs):
    return toy_runner(
        work_dir,
        distiller(teachers, weighting=dict(type='MMKD', **(weighting or {}))),
        **{**dict(hooks=hooks, epochs=4, size=40, jitter=.3), **kwargs})


def test_a_run_learns_and_goes_on_bit_for_bit(tmp_path):
    teachers = toy_teachers(tmp_path, 3)
    seed = dict(randomness=dict(seed=3), validate=True)
    whole = run(tmp_path / 'a', teachers, **seed)
    whole.train()
    learner = learner_of(whole.model)
    assert learner.updates == 6 and len(learner.buffer) == 0
    scalars = whole.message_hub.log_scalars
    for name in ('loss', 'gain', 'grad_norm', 'skipped'):
        assert len(scalars[f'train/meta/{name}'].data[0]) == 6
    with pytest.raises(Killed):
        run(tmp_path / 'b', teachers, call=(kill, 12), **seed).train()
    torch.rand(17)  # another process has another state
    resumed = run(tmp_path / 'b', teachers, resume=True, **seed)
    resumed.train()
    runners = whole, resumed
    same(*(r.model.state_dict() for r in runners))
    same(*(learner_of(r.model).state_dict() for r in runners))
    same(*(r.optim_wrapper.state_dict() for r in runners))
    same(*(json.loads((tmp_path / f / 'teacher_weights.json').read_text())
           for f in 'ab'))
    same(*(torch.load(tmp_path / f / 'student.pth') for f in 'ab'))


def test_a_checkpoint_within_an_epoch_holds_the_buffer(tmp_path):
    loop = dict(
        hooks=HOOKS[:1],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=5),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=5)))
    teachers = toy_teachers(tmp_path)
    run(tmp_path, teachers, **loop).train()
    path = tmp_path / 'iter_5.pth'
    resumed = run(
        tmp_path / 'b', teachers, resume=True, load_from=str(path), **loop)
    resumed.load_or_resume()
    learner = learner_of(resumed.model)
    assert learner.updates == 1 and len(learner.buffer) == 5 * 2
    same(learner.state_dict(),
         torch.load(path, weights_only=False)['mmkd_rl_meta'])


def test_checkpoints_without_networks_or_with_others(tmp_path):
    teachers = toy_teachers(tmp_path)
    runner = run(tmp_path, teachers, hooks=HOOKS[:1], epochs=1)
    runner.train()
    path = tmp_path / 'epoch_1.pth'
    resume = dict(resume=True, load_from=str(path), hooks=HOOKS[:1])
    other = run(tmp_path / 'b', teachers, weighting=dict(hidden=3), **resume)
    with pytest.raises(ValueError, match='weight networks do not fit'):
        other.load_or_resume()
    weights = run(tmp_path / 'c', teachers, hooks=HOOKS[:1],
                  load_from=str(path))
    weights.load_or_resume()
    same(weights.model.state_dict(), runner.model.state_dict())
    assert learner_of(weights.model).updates == 0
    content = torch.load(path, weights_only=False)
    del content['mmkd_rl_meta']
    torch.save(content, path)
    with pytest.raises(ValueError, match="no 'mmkd_rl_meta'.*load_from "
                       'without --resume'):
        run(tmp_path / 'd', teachers, **resume).load_or_resume()


@pytest.mark.parametrize('interval', [0, -1, 2.5, '5', True])
def test_bad_interval(interval):
    with pytest.raises(ValueError, match='MetaWeightingHook.interval must be '
                       f'.*>= 1, got {interval!r}'):
        MetaWeightingHook(interval=interval)


def test_an_interval_that_never_ends(tmp_path):
    runner = run(tmp_path, toy_teachers(tmp_path), epochs=1,
                 hooks=[dict(type='MetaWeightingHook', interval=6)])
    with pytest.raises(ValueError, match='interval=6, but training has 5'):
        runner.train()


def test_hook_with_another_strategy(tmp_path):
    runner = toy_runner(
        tmp_path, distiller(toy_teachers(tmp_path)), hooks=[HOOK])
    with pytest.raises(TypeError, match='MetaWeightingHook.*is '
                       "AverageWeighting.*dict\\(type='MMKD'\\)"):
        runner.train()


def test_agents_hook_with_mmkd(tmp_path):
    runner = run(tmp_path, toy_teachers(tmp_path),
                 hooks=[dict(type='AgentAlternationHook')])
    with pytest.raises(TypeError, match='is MMKD, which has no agent'):
        runner.train()
