"""The distilled model is the student itself: configs, optimisers, checkpoints
and hooks of other packages for the student work without changes."""

import copy
import json
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.models import ImageClassifier

from mmkd_rl.export import export_student
from mmkd_rl.export.student import plain_copy
from mmkd_rl.registry import MODELS
from mmkd_rl.utils import checkpoint_io
from tests.commands import config, in_process
from tests.toy import (
    World,
    classifier,
    distiller,
    samples,
    toy_runner,
    toy_teachers,
)

NO_WEIGHT = dict(
    logit_loss=dict(type='KDLoss', loss_weight=0.),
    feature_loss=dict(type='FitNetLoss', loss_weight=0.))


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path)


def own(state):
    """Weights of the student, without those of the distillation."""
    return {n: t for n, t in state.items()
            if not n.startswith('distillation.')}


def equal(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(v, b[n]) for n, v in a.items())


def test_it_is_an_object_of_the_students_class(teachers):
    model = MODELS.build(distiller(teachers))
    assert type(model) is ImageClassifier
    assert set(own(model.state_dict())) == set(
        MODELS.build(classifier(8, hidden=6)).state_dict())
    assert model.with_neck and model.with_head


def test_no_name_is_one_that_custom_keys_look_for(teachers):
    """``custom_keys`` match parts of names."""
    for weighting in ('AMTMLKD', 'MTKDRL', 'MMKD', 'CAMKD'):
        model = MODELS.build(distiller(
            teachers, weighting=dict(type=weighting),
            feature_loss=dict(type='NDLoss')))
        names = [n for n in model.state_dict()
                 if n.startswith('distillation.')]
        assert names
        for name in names:
            for key in ('head', 'backbone', 'neck', 'norm', 'pos_embed'):
                assert key not in name


# ------------------------------------------------------------- weight zero


def end(folder, model, hooks=(), **kwargs):
    runner = toy_runner(
        folder, model, epochs=2, hooks=hooks, jitter=.1, validate=True,
        randomness=dict(seed=3), **kwargs)
    runner.train()
    return own(runner.model.state_dict())


AGENT = dict(type='AgentAlternationHook')


@pytest.mark.parametrize('weighting, hooks', [
    (dict(type='AverageWeighting'), []),
    (dict(type='AMTMLKD', distance_weight=0., angle_weight=0.), []),
    (dict(type='MTKDRL'), [AGENT]),
    (dict(type='MTKDRL', updater=dict(type='PPO')), [AGENT]),
    (dict(type='MTKDRL', updater=dict(type='DDPG')), [AGENT]),
    (dict(type='MMKD'), [dict(type='MetaWeightingHook', interval=2)]),
], ids=['AVER', 'AMTML-KD', 'PG', 'PPO', 'DDPG', 'MMKD'])
def test_without_weight_the_run_is_the_students_own(
        tmp_path, teachers, weighting, hooks):
    """With loss weight 0 the run is that of the student, bit for bit: the
    distillation draws no numbers from the global generators, neither when it
    is built nor in training, and adds nothing to the gradients. Augmentation
    draws from all three generators."""
    alone = end(tmp_path / 'a', classifier(8, hidden=6))
    distilled = end(tmp_path / 'b', distiller(
        teachers, weighting=weighting, **NO_WEIGHT), hooks)
    assert equal(alone, distilled)


def test_init_cfg_of_the_whole_model_leaves_the_projectors_alone(teachers):
    """``init_cfg`` of the model initialises all children, but not those of the
    distillation, for which it would draw random numbers."""
    init = dict(type='Constant', layer=['Conv2d', 'Linear', 'BatchNorm2d'],
                val=2.)
    model = MODELS.build(distiller(
        teachers, student=dict(classifier(8, hidden=6), init_cfg=init)))
    before = {n: p.clone() for n, p in model.named_parameters()}
    model.init_weights()
    for name, value in model.named_parameters():
        if name.startswith('distillation.'):
            assert torch.equal(value, before[name]), name
        elif name.startswith('backbone.') and name.endswith('weight'):
            assert (value == 2).all(), name


def test_compiled(tmp_path, teachers):
    """MMEngine compiles ``train_step`` including hooks. The backend traces the
    graphs and runs them as they are, and needs no compiler."""
    ends = [
        end(tmp_path / str(cfg), distiller(
            teachers, weighting=dict(type='MTKDRL')), [AGENT], compile=cfg)
        for cfg in (False, dict(backend='aot_eager'))
    ]
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------- checkpoints


@pytest.fixture
def trained(tmp_path, teachers):
    """Folder of a distillation, its last accuracy, its model."""
    runner = toy_runner(
        tmp_path / 'run', distiller(teachers), epochs=3, validate=True,
        size=64, randomness=dict(seed=0), hooks=[dict(
            type='StudentExportHook')])
    runner.train()
    log = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    accuracy = [json.loads(line)['accuracy/top1']
                for line in next(log).read_text().splitlines()
                if 'accuracy' in line][-1]
    assert accuracy > 60
    return tmp_path / 'run', accuracy, runner.model


def test_plain_and_distilled_configs_take_each_others_checkpoints(
        tmp_path, trained, teachers, monkeypatch, capfd):
    """tools/test.py gives the training's accuracy for all four pairs of config
    and checkpoint."""
    run, accuracy, _ = trained
    plain = config(tmp_path, 'plain', classifier(8, hidden=6))
    distilled = config(tmp_path, 'distilled', distiller(teachers))
    for cfg in (plain, distilled):
        for file in (run / 'epoch_3.pth', run / 'student.pth'):
            out = tmp_path / 'out.json'
            code, text = in_process(
                monkeypatch, capfd, 'test.py', cfg, file, '--out', out,
                '--work-dir', tmp_path / 'test')
            assert not code, text
            result = json.loads(out.read_text())
            assert result['accuracy/top1'] == pytest.approx(accuracy)
            assert '6 of 6 weights of ImageClassifier came from the file' \
                in text


def test_training_starts_from_a_plain_students_file(tmp_path, trained,
                                                    teachers):
    run, _, model = trained
    start = {}

    def look(runner):
        start.update({n: t.clone()
                      for n, t in own(runner.model.state_dict()).items()})

    toy_runner(tmp_path / 'b', distiller(teachers), epochs=1,
               load_from=str(run / 'student.pth'), call=(look, 0)).train()
    assert equal(start, own(model.state_dict()))


def first_layout(model, more=0):
    """State dict in the first layout of version 0.1, plus a number."""
    renamed = {}
    for name, value in model.state_dict().items():
        if name.startswith('distillation.terms.'):
            _, _, term, kind, teacher, level, *rest = name.split('.')
            assert (kind, level) == ('projectors', '0') and term == '1'
            name = '.'.join(['projectors', teacher, *rest])
        elif name.startswith('distillation.'):
            name = name.removeprefix('distillation.')
        else:
            name = f'student.{name}'
        renamed[name] = value + more
    return renamed


@pytest.mark.parametrize('how', ['torch', 'mmengine'])
def test_checkpoints_of_the_first_layout_load(teachers, caplog, how):
    model = MODELS.build(distiller(teachers, weighting=dict(type='AMTMLKD')))
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = first_layout(model, 1)
    assert any(n.startswith('weighting.') for n in state)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level('INFO', logger=logger.name):
            if how == 'torch':
                model.load_state_dict(state)
            else:
                load_state_dict(model, state, strict=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text.count("0.1's first layout") == 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] + 1), name
    exported = export_student(dict(state_dict=state))['state_dict']
    assert equal(exported, own(model.state_dict()))


def test_a_resumed_run_of_the_first_layout_goes_on(tmp_path, trained,
                                                   teachers):
    """Also the optimiser's state, which depends on the order of weights."""
    run, _, model = trained
    saved = torch.load(run / 'epoch_3.pth', weights_only=False)
    saved['state_dict'] = first_layout(model)
    checkpoint_io.save(saved, str(tmp_path / 'old.pth'))
    runner = toy_runner(tmp_path / 'c', distiller(teachers), epochs=4,
                        size=64, resume=True,
                        load_from=str(tmp_path / 'old.pth'))
    runner.load_or_resume()
    momentum = runner.optim_wrapper.state_dict()['state']
    names = [n for n, _ in runner.model.named_parameters()]
    assert len(momentum) == len(names)
    shapes = [tuple(p.shape) for p in runner.model.parameters()]
    assert [tuple(momentum[i]['momentum_buffer'].shape)
            for i in range(len(names))] == shapes
    assert equal(runner.model.state_dict(), model.state_dict())


# ------------------------------------------------------- how much was loaded


def test_training_does_not_start_from_another_networks_file(
        tmp_path, monkeypatch, capfd, teachers):
    """Otherwise training would start from random weights, and the exit code
    would be 0."""
    cfg = config(tmp_path, 'cfg', distiller(teachers))
    other = tmp_path / 'other.pth'
    checkpoint_io.save(dict(state_dict={
        'net.first.weight': torch.zeros(3), 'net.first.bias': torch.zeros(3)}),
        str(other))
    code, text = in_process(
        monkeypatch, capfd, 'train.py', cfg, '--work-dir', tmp_path / 'w',
        options=[f'load_from={other}'])
    assert code == 2, text
    message = text.split('ERROR: ')[1]
    assert f"load_from '{other}': 0 of 6 weights of ImageClassifier" in message
    assert 'backbone.hidden.weight' in message
    assert 'net.first.weight' in message and 'Traceback' not in text


def test_a_student_of_another_size_is_not_tested(tmp_path, monkeypatch,
                                                 capfd):
    """All names of the checkpoint match, but no shape does."""
    cfg = config(tmp_path, 'cfg', classifier(8, hidden=6))
    checkpoint_io.save(
        dict(state_dict=MODELS.build(classifier(9, hidden=7)).state_dict()),
        str(tmp_path / 'other.pth'))
    code, text = in_process(monkeypatch, capfd, 'test.py', cfg,
                            tmp_path / 'other.pth', '--work-dir',
                            tmp_path / 'w')
    assert code == 2
    assert '1 of 6 weights' in text and 'another shape' in text


# ------------------------------------------- use of the model by other code


def test_inferencer(tmp_path, trained):
    """MMPretrain's inferencer works with the plain config and the run's
    checkpoint."""
    import mmpretrain.apis as apis
    import numpy as np
    run, _, model = trained
    cfg = Config(dict(
        default_scope='mmpretrain',
        model=dict(classifier(8, hidden=6), data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor')),
        test_dataloader=dict(dataset=dict(
            type='mmpretrain.CustomDataset', pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='PackInputs')]))))
    init_default_scope('mmpretrain')  # as in a process of its own
    inferencer = apis.ImageClassificationInferencer(
        cfg, pretrained=str(run / 'epoch_3.pth'), device='cpu')
    image = np.random.default_rng(0).integers(
        0, 255, (4, 4, 3), dtype=np.uint8)
    result, = inferencer(image)
    with torch.no_grad():
        score = model.eval()(torch.from_numpy(image).permute(
            2, 0, 1)[None].float()).softmax(1)[0]
    assert result['pred_label'] == int(score.argmax())
    torch.testing.assert_close(
        torch.as_tensor(result['pred_scores']), score, check_dtype=False)


def test_a_copy_has_hooks_of_its_own(teachers):
    model = MODELS.build(distiller(
        teachers, weighting=dict(type='MTKDRL'))).train()
    images, labels = World().batch(4)
    model(images, samples(labels), mode='loss')
    twin = copy.deepcopy(model)
    assert twin.distillation.last_step is None
    assert twin.distillation.teachers is model.distillation.teachers
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    losses = twin(images, samples(labels), mode='loss')
    assert float(losses['loss_student'].detach()) == pytest.approx(
        math.log(5), rel=1e-5)
    assert twin.distillation.last_step is not model.distillation.last_step
    assert all(p.grad is None for p in model.parameters())


def test_a_failed_forward_pass_leaves_no_hook_behind(teachers):
    """Nor does it leave the teachers' outputs in memory; the next forward pass
    works."""
    model = MODELS.build(distiller(teachers)).train()
    images, labels = World().batch(4)
    with pytest.raises(Exception, match='.'):
        model(images, ['no sample'] * 4, mode='loss')
    assert model.distillation._running is None
    for module in model.backbone.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    losses = model(images, samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_logit', 'loss_feature'}


def test_a_pass_within_the_pass(teachers):
    """A head that calls the model while it computes its loss."""
    model = MODELS.build(distiller(teachers)).train()
    images, labels = World().batch(4)
    own = model.head.loss

    def loss(*args):
        model(images, mode='tensor')
        return own(*args)

    expected = model(images, samples(labels), mode='loss')
    model.head.loss = loss
    with pytest.raises(ValueError, match='runs 2 times'):
        # The taps cannot tell which pass the outputs belong to.
        model(images, samples(labels), mode='loss')
    model.head.loss = own
    again = model(images, samples(labels), mode='loss')
    assert {n: float(v.detach()) for n, v in again.items()} == {
        n: float(v.detach()) for n, v in expected.items()}


def test_the_distillation_can_be_taken_out_of_a_copy(teachers):
    """Knowledge Flow's old student and the benchmark do this."""
    model = MODELS.build(distiller(teachers)).train()
    plain = plain_copy(model)
    images, labels = World().batch(4)
    assert set(plain(images, samples(labels), mode='loss')) == {'loss'}
    assert set(model(images, samples(labels), mode='loss')) == {
        'loss_student', 'loss_logit', 'loss_feature'}
    assert equal(plain.state_dict(), own(model.state_dict()))
    assert not plain._forward_hooks and not plain._forward_pre_hooks
    plain.load_state_dict(own(model.state_dict()))
