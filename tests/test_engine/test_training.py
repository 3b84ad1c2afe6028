"""Real runs with optimiser wrappers, averaged weights, accumulated gradients
and activation checkpointing."""

import copy
import glob
import json
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper

from mmkd_rl.engine.hooks import weight_visualization_hook
from mmkd_rl.registry import MODELS
from mmkd_rl.visualization import WeightRecord
from tests.test_engine.test_resume import learner_of
from tests.toy import (
    World,
    classifier,
    distiller,
    samples,
    toy_runner,
    toy_teachers,
)

AGENT = [dict(type='AgentAlternationHook')]


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=2)


def mtkd_rl(teachers, **kwargs):
    return distiller(teachers, **{
        'weighting': dict(type='MTKDRL'),
        **kwargs
    })


def own(state):
    """Weights of the student, without those of the distillation."""
    return {n: t for n, t in state.items()
            if not n.startswith('distillation.')}


def weights_of(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_two_epochs(tmp_path, teachers):
    """The loss falls, the agent is trained after each epoch, and a checkpoint
    has the student and the projectors only."""
    runner = toy_runner(
        tmp_path, mtkd_rl(teachers), hooks=AGENT, epochs=2, size=64,
        randomness=dict(seed=0))
    images, labels = World().batch(64)
    before = runner.model(images, samples(labels), mode='loss')
    runner.train()
    after = runner.model(images, samples(labels), mode='loss')
    assert after['loss_student'] < 0.9 * before['loss_student']
    assert learner_of(runner.model).updates == 2
    student = MODELS.build(classifier(8, hidden=6)).state_dict().keys()
    names = weights_of(tmp_path / 'epoch_2.pth').keys()
    assert student < names
    for name in names - student:
        assert name.startswith('distillation.terms.1.projectors.'), name


def test_mixed_precision(tmp_path, teachers):
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=AGENT,
        optim_wrapper=dict(
            type='BFloat16OptimWrapper', precision='bfloat16',
            optimizer=dict(type='SGD', lr=.05)))
    runner.train()
    for p in (*runner.model.parameters(),
              *learner_of(runner.model).policy.parameters()):
        assert p.dtype == torch.float32 and p.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(),
                    reason='MMEngine refuses AmpOptimWrapper without a GPU')
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_on_a_gpu(tmp_path, teachers, dtype):
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=AGENT,
        optim_wrapper=dict(
            type='AmpOptimWrapper',
            dtype=dtype,
            optimizer=dict(type='SGD', lr=.05)))
    runner.train()
    assert all(p.isfinite().all() for p in runner.model.parameters())


def test_scaled_losses_on_a_cpu(tmp_path, teachers, monkeypatch):
    """MMEngine's AmpOptimWrapper with a real loss scaler, and with its check
    for a GPU patched: the run is the same as without a scaler."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available',
                        lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler',
                        partial(torch.amp.GradScaler, device='cpu'))
    weights = []
    for name, wrapper in (('scaled',
                           dict(
                               type='AmpOptimWrapper',
                               dtype='bfloat16',
                               loss_scale=1024.)),
                          ('plain', dict(type='BFloat16OptimWrapper',
                                         precision='bfloat16'))):
        torch.manual_seed(0)
        runner = toy_runner(
            tmp_path / name,
            mtkd_rl(teachers),
            hooks=AGENT,
            randomness=dict(seed=0),
            optim_wrapper=dict(wrapper, optimizer=dict(type='SGD', lr=.05)))
        runner.train()
        assert (name == 'scaled') == hasattr(runner.optim_wrapper,
                                             'loss_scaler')
        weights.append(runner.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(
            value, weights[1][name], rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_exported(tmp_path, teachers):
    """With EMAHook the ``state_dict`` of a checkpoint has averaged weights."""
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=[
            *AGENT,
            dict(type='EMAHook', momentum=.1),
            dict(type='StudentExportHook')
        ],
        validate=True)
    runner.train()
    exported = torch.load(
        tmp_path / 'student.pth', weights_only=True)['state_dict']
    averaged = weights_of(tmp_path / 'epoch_2.pth')
    raw = own(runner.model.state_dict())
    assert set(exported) == set(raw)
    for name, value in exported.items():
        assert torch.equal(value, averaged[name])
    assert any(not torch.equal(v, raw[n]) for n, v in exported.items())


def test_accumulation_is_the_larger_batch(tmp_path, teachers):
    """Four batches of 8 for one step give the same student as one batch of 32,
    because losses are means and the toy student has no batch norm. Both runs
    clip gradients."""
    students = []
    for folder, size, count in (('a', 8, 4), ('b', 32, 1)):
        start = {}

        def note(runner, start=start):
            start.update(copy.deepcopy(own(runner.model.state_dict())))

        runner = toy_runner(
            tmp_path / folder,
            distiller(teachers, feature_loss=None),
            epochs=1,
            batch_size=size,
            randomness=dict(seed=0),
            call=(note, 0),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=.5),
                accumulative_counts=count,
                clip_grad=dict(max_norm=.1)))
        runner.train()
        students.append({
            n: p - start[n]
            for n, p in own(runner.model.state_dict()).items()
        })
    norm = sum(p.square().sum() for p in students[0].values()).sqrt()
    assert float(norm) == pytest.approx(.5 * .1, rel=1e-3)  # clipped
    for name, change in students[0].items():
        torch.testing.assert_close(
            change, students[1][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('taps', [None, dict(feature='backbone.hidden')])
def test_activation_checkpointing_changes_no_number(tmp_path, teachers, taps):
    """Also if a tap is inside a part that is computed twice."""
    states = []
    for folder, modules in (('a', None), ('b', ['backbone'])):
        runner = toy_runner(
            tmp_path / folder,
            mtkd_rl(teachers, taps=taps),
            hooks=AGENT,
            size=16,
            randomness=dict(seed=0),
            activation_checkpointing=modules)
        runner.train()
        states.append(runner.model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], msg=name)


def test_scalars_pictures_and_record(tmp_path, teachers):
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=[
            *AGENT,
            dict(
                type='WeightVisualizationHook',
                interval=2,
                num_samples=3,
                mark=dict(t1='noise')),
            dict(type='StudentExportHook')
        ],
        epochs=3)
    runner.train()
    scalars = [
        'weight_logit/t0', 'weight_logit/t1', 'weight_feature/t0',
        'weight_feature/t1', 'weight_entropy/logit', 'weight_entropy/feature',
        'agent/loss', 'agent/entropy', 'agent/expected_reward'
    ]
    for name in scalars:
        assert f'train/{name}' in runner.message_hub.log_scalars
    path, = glob.glob(f'{tmp_path}/*/vis_data/scalars.json')
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    for name in scalars:
        assert any(name in line for line in lines), name
    for picture in ('teacher_weights.png', 'sample_weights.png'):
        assert (tmp_path / picture).read_bytes()[:4] == b'\x89PNG'

    record = json.loads((tmp_path / 'teacher_weights.json').read_text())
    assert record['teachers'] == ['t0', 't1']
    assert record['iterations'] == [2, 4, 6, 8, 10, 12]
    for key in ('logit', 'feature'):
        for row in record[key]:
            assert sum(row) == pytest.approx(1)
        assert record[key][0] == [.5, .5] == record[key][1]  # warm-up
        assert record[key][-1] != [.5, .5]
    assert record['entropy'][0] == pytest.approx([.6931, .6931], abs=1e-3)


@pytest.mark.parametrize('kind, other, name', [
    ('logits', 'feature', 'logit'), ('features', 'logit', 'feature')])
def test_weights_that_train_nothing_are_not_shown(
        tmp_path, teachers, kind, other, name, monkeypatch):
    """Of logits and features only what is distilled, in log and pictures."""
    shown = {}
    monkeypatch.setattr(
        weight_visualization_hook, 'draw_samples',
        lambda images, weights, *args: shown.update(
            weights=weights, title=args[-1]))
    runner = toy_runner(
        tmp_path, mtkd_rl(teachers, **{f'{other}_loss': None}),
        hooks=[*AGENT, dict(type='WeightVisualizationHook', interval=2)],
        epochs=2)
    monkeypatch.setattr(weight_visualization_hook, 'save_picture',
                        lambda runner, file, figure: shown.update(
                            {file: figure}))
    runner.train()
    logged = runner.message_hub.log_scalars
    assert f'train/weight_{name}/t0' in logged
    assert f'train/weight_entropy/{name}' in logged
    assert f'train/weight_{other}/t0' not in logged
    assert f'train/weight_entropy/{other}' not in logged
    assert f'train/agent/balance_{name}/agent' in logged
    assert f'train/agent/balance_{other}/agent' not in logged
    axis, = shown['teacher_weights'].axes
    assert axis.get_title() == f'distillation of {kind}'
    weights = runner.model.distillation.last_step.weights
    np.testing.assert_allclose(
        shown['weights'], getattr(weights, name)[:len(shown['weights'])])
    assert shown['title'].startswith(f'{name.capitalize()} weights')


@pytest.mark.parametrize('package, option', [
    ('mmpretrain.ClsDataPreprocessor', 'to_rgb'),
    ('mmseg.SegDataPreProcessor', 'bgr_to_rgb')])
@pytest.mark.parametrize('swaps', [False, True])
def test_pictures_have_the_colours_of_the_file(tmp_path, teachers, package,
                                               option, swaps, monkeypatch):
    """Files are read as BGR where the preprocessor swaps, whatever its
    toolbox calls that."""
    pytest.importorskip(package.partition('.')[0])
    preprocessor = MODELS.build({
        'type': package, 'mean': [0.] * 3, 'std': [1.] * 3, option: swaps})
    shown = []
    monkeypatch.setattr(
        weight_visualization_hook, 'draw_samples',
        lambda images, *args: shown.extend(images))
    monkeypatch.setattr(weight_visualization_hook, 'save_picture',
                        lambda *args: None)
    runner = toy_runner(tmp_path, mtkd_rl(teachers), epochs=2, hooks=AGENT)
    runner.train()
    runner.model.data_preprocessor = preprocessor
    hook = weight_visualization_hook.WeightVisualizationHook()
    hook.record = WeightRecord(['t0', 't1'])
    blue = torch.zeros(3, 2, 2, dtype=torch.uint8)
    blue[0] = 255
    hook._last_batch = dict(inputs=[blue], data_samples=[{}])
    hook._draw_samples(runner)
    assert shown[0][0, 0].tolist() == ([0, 0, 255] if swaps else [255, 0, 0])


def test_the_exported_student_is_a_plain_classifier(tmp_path, teachers):
    runner = toy_runner(
        tmp_path,
        mtkd_rl(teachers),
        hooks=[*AGENT, dict(type='StudentExportHook', out='sub/s.pth')])
    runner.train()
    content = torch.load(tmp_path / 'sub' / 's.pth', weights_only=True)
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        plain = registry.build(classifier(8, hidden=6)).eval()
    plain.load_state_dict(content['state_dict'], strict=True)
    images = World().batch(4)[0]
    assert torch.equal(plain(images), runner.model.eval()(images))
