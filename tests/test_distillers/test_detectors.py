"""Detectors with DetectionTask: teachers of other strides and kinds, scores of
shared anchors, every strategy, and batches that are hard to take."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import mmkd_rl
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.flow import flow_of
from mmkd_rl.options import ConfigError
from mmkd_rl.records import Batch, Output
from mmkd_rl.registry import MODELS
from mmkd_rl.taps import Recording
from mmkd_rl.teachers.loading import init_untrained
from tests.test_distillers.test_dense import (
    DETR,
    MASK_RCNN,
    RETINANET,
    SIDE,
    check_plain_model_loads,
    detection_samples,
    detector,
    loader,
    teacher,
    yolox,
)
from tests.toy import toy_runner

pytestmark = pytest.mark.filterwarnings('ignore')
SCORES = [dict(type='BinaryKDLoss'), dict(type='CWDLogitLoss')]
FEATURES = [dict(type='FGDLoss'), dict(type='PKDLoss')]
GRADIENT = dict(type='MTKDRL', reward=dict(type='GradientReward'))


def retinanet(width=8, channels=64, classes=80):
    cfg = detector(RETINANET, width, channels)
    cfg['bbox_head'].update(in_channels=channels, feat_channels=16,
                            stacked_convs=1, num_classes=classes)
    return cfg


def distilled(student, teachers, scores=False, **kwargs):
    kwargs.setdefault('losses', FEATURES + SCORES * scores)
    return dict(type='mmkd_rl.MultiTeacherDistiller', student=student,
                teachers=teachers, probe_size=256,
                task=dict(type='DetectionTask', scores=scores), **kwargs)


def built(*args, **kwargs):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(distilled(*args, **kwargs)).train()
    init_untrained(model)
    return model


def step(model, samples=None):
    """Losses of a step; all are finite, and so are the gradients."""
    torch.manual_seed(1)
    losses = model(torch.randn(2, 3, SIDE, SIDE),
                   samples or detection_samples(), mode='loss')
    total, logged = model.parse_losses(losses)
    model.zero_grad()
    total.backward()
    assert all(v.isfinite() for v in logged.values()), logged
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    return logged


@pytest.mark.parametrize('weighting', [
    dict(type='AverageWeighting'), dict(type='AEKD'), GRADIENT])
def test_levels_of_one_stride_are_compared(weighting):
    """RetinaNet's maps have strides 8 to 128, Mask R-CNN's 4 to 64, those of
    a deformable DETR 8 to 64."""
    model = built(retinanet(), [
        teacher('mask', detector(MASK_RCNN, 8, 32)),
        teacher('detr', detector(DETR, 8, 64))], weighting=weighting)
    logged = step(model)
    assert logged['loss_feature_FGDLoss'] > 0 < logged[
        'loss_feature_PKDLoss']
    batch = torch.zeros(1, 3, 256, 256)
    distillation = model.distillation
    for pooled, network, wanted in zip(
            distillation.teachers, ('mask', 'detr'),
            ((32, 16, 8, 4), (32, 16, 8, 4))):
        output, _ = pooled(Batch(batch))
        assert tuple(f.shape[2] for f in output.features) == wanted, network
    for term in distillation.terms:
        assert [len(p) for p in term.projectors] == [4, 4]
    weights = distillation.last_step.weights.feature
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


HOOKS = dict(MTKDRL=[
    dict(type='mmkd_rl.AgentAlternationHook', warmup=1, interval=1)])


@pytest.mark.parametrize('weighting', [
    dict(type='AverageWeighting'), dict(type='AEKD'), dict(type='AMTMLKD'),
    dict(type='EBKD'), dict(type='CAMKD', feature='teacher'), GRADIENT,
    dict(type='MTKDRL', reward=dict(type='DistanceReward'))],
    ids=lambda w: w['type'] + w.get('reward', {}).get('type', ''))
def test_every_strategy_distils_scores(tmp_path, weighting):
    """A run with two RetinaNets; its checkpoint is the plain model's."""
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    student = retinanet(classes=3)
    runner = toy_runner(
        tmp_path, distilled(
            student, [teacher('a', retinanet(12, 32, 3)),
                      teacher('b', retinanet(8, 16, 3))],
            scores=True, weighting=weighting),
        epochs=2, default_scope='mmdet', train_dataloader=loader(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
        hooks=HOOKS.get(weighting['type'], []))
    runner.train()
    model = unwrapped(runner)
    assert type(model).__name__ == 'RetinaNet'
    weights = model.distillation.last_step.weights
    for kind in (weights.logit, weights.feature):
        torch.testing.assert_close(kind.sum(1), torch.ones(2))
    if weighting['type'] == 'MTKDRL':
        assert model.distillation.weighting.learner.updates == 2
    check_plain_model_loads(student, tmp_path / 'epoch_2.pth')


def test_both_methods_share_the_teachers(tmp_path, monkeypatch):
    """Scores and features are distilled while teachers lend inner layers, from
    one forward pass of each; what is exported is the plain detector."""
    init_default_scope('mmdet')
    student = retinanet(classes=3)
    plain = Config(dict(
        default_scope='mmdet', model=student, train_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4))))
    teachers = [teacher('a', retinanet(12, 32, 3)),
                teacher('b', retinanet(8, 16, 3))]
    cfg = mmkd_rl.distill(plain, 'mtkd_rl+knowledge_flow', teachers)
    assert cfg.model.task == dict(type='DetectionTask', scores=True)
    runner = toy_runner(
        tmp_path, cfg.model, epochs=2, default_scope='mmdet',
        train_dataloader=loader(), optim_wrapper=plain.optim_wrapper,
        hooks=list(cfg.custom_hooks))
    model = unwrapped(runner)
    calls = dict(a=0, b=0)
    for taught in model.distillation.teachers:
        def count(*_, name=taught.name):
            calls[name] += 1
        taught.model.backbone.register_forward_hook(count)
    steps = []
    train_step = model.train_step

    def watched(*args, **kwargs):
        before = dict(calls)
        losses = train_step(*args, **kwargs)
        steps.append({k: calls[k] - before[k] for k in calls})
        assert {'loss_logit', 'loss_feature', 'loss_dependency'} <= set(
            losses), losses
        return losses

    monkeypatch.setattr(model, 'train_step', watched)
    runner.train()
    assert steps and all(step == dict(a=1, b=1) for step in steps)
    assert flow_of(model).independent
    weights = torch.load(tmp_path / 'student.pth')['state_dict']
    built_plain = MODELS.build(student)
    missing, extra = built_plain.load_state_dict(weights, strict=False)
    assert not missing and not extra


def objects(boxes=(), labels=(), crowd=False):
    """Samples with the same objects in each image."""
    samples = detection_samples()
    for sample in samples:
        given = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float).view(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long))
        empty = InstanceData(bboxes=torch.zeros(0, 4),
                             labels=torch.zeros(0, dtype=torch.long))
        sample.gt_instances, sample.ignored_instances = (
            (empty, given) if crowd else (given, empty))
    return samples


@pytest.mark.parametrize('samples', [
    lambda: objects(),
    lambda: objects([[4., 8, 30, 30]], [2], crowd=True),
    lambda: objects([[9., 9, 9, 20], [12, 12, 12, 12]], [2, 3]),
    lambda: objects([[70., 70, 90, 90], [-20, 5, -1, 30]], [2, 3]),
    lambda: objects([[0., 0, 64, 64]], [1])],
    ids=['nothing', 'a crowd', 'no area', 'outside', 'the whole image'])
@pytest.mark.parametrize('weighting', [
    dict(type='CAMKD', feature='teacher'), GRADIENT])
def test_objects_that_are_hard_to_take(samples, weighting):
    model = built(retinanet(), [
        teacher('a', retinanet(12, 32)), teacher('b', retinanet(8, 16))],
        scores=True, weighting=weighting, losses=[*SCORES, FEATURES[0]])
    # MMDetection's own loss of a box without area is infinite.
    losses = model(torch.randn(2, 3, SIDE, SIDE), samples(), mode='loss')
    ours = {k: v for k, v in losses.items()
            if k.startswith(('loss_logit', 'loss_feature'))}
    assert len(ours) == 3 and all(v.isfinite() for v in ours.values())
    sum(ours.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all()
               for p in model.parameters())
    assert model.distillation.last_step.weights.logit.isfinite().all()


def test_a_teacher_of_more_classes():
    """Its class map counts classes, not the channels of nine anchors."""
    row = [5, -1, 0]
    model = built(
        retinanet(classes=3),
        [dict(teacher('a', retinanet(12, 32, 80)), class_map=row),
         teacher('b', retinanet(8, 16, 3))], scores=True)
    step(model)
    pool = model.distillation.teachers
    batch = Batch(torch.randn(1, 3, SIDE, SIDE))
    mapped, own = pool.run(batch).outputs[0], pool[0](batch)[0]
    for ours, theirs in zip(mapped.logits, own.logits):
        ours, theirs = (z.unflatten(1, (9, -1)) for z in (ours, theirs))
        for c, k in enumerate(row):
            if k >= 0:
                assert torch.equal(ours[:, :, c], theirs[:, :, k])
    # An object of a class that the teacher does not know.
    step(model, objects([[4., 8, 30, 30]], [1]))
    assert not model.distillation.last_step.weights.logit[:, 0].any()


@pytest.mark.parametrize('class_map, message', [
    (None, "'a' has 80 classes and the student 3; give .*class_map"),
    ([1, 2], r'has 2 entries, but the student 3 classes'),
    ([80, 1, 2], r'has \[80\], but the teacher.s classes are 0 to 79'),
    (['a', 'b', 'c'], 'class_map'),
    ({7: 1, 0: 2}, 'class_map')])
def test_class_maps_count_classes(class_map, message):
    """Not channels, which are nine times as many."""
    taught = teacher('a', retinanet(12, 32, 80))
    if class_map is not None:
        taught['class_map'] = class_map
    with pytest.raises((ValueError, TypeError), match=message) as error:
        built(retinanet(classes=3), [taught], scores=True)
    assert '720' not in str(error.value) and '27' not in str(error.value)


def test_the_reward_is_neutral_where_a_teacher_knows_no_object():
    """As the rewards that are computed at once: the mean of the others."""
    weighting = copy.deepcopy(GRADIENT)
    model = built(
        retinanet(classes=3),
        [dict(teacher('a', retinanet(12, 32, 80)), class_map=[5, -1, 0]),
         teacher('b', retinanet(8, 16, 3)), teacher('c', retinanet(8, 16, 3))],
        scores=True, weighting=weighting)
    step(model, objects([[4., 8, 30, 30]], [1]))
    learner = model.distillation.weighting.learner
    learner.remember(model.distillation.last_step.weights.record)
    transition, = learner.history
    logits_BM = transition.reward[:, 0]
    torch.testing.assert_close(logits_BM[:, 0], logits_BM[:, 1:].mean(1))
    assert logits_BM[:, 1].ne(logits_BM[:, 2]).all()


def test_frozen_levels_get_no_reward_and_others_do():
    """A backbone's first level has no gradient with frozen stages."""
    student = retinanet()
    student['backbone']['frozen_stages'] = 1
    levels = dict(feature=dict(path='backbone', index='all'))
    frozen, free = (built(
        dict(student, backbone=dict(student['backbone'], frozen_stages=n)),
        [dict(teacher(name, retinanet(12, 32)), taps=levels)
         for name in 'ab'], weighting=GRADIENT, taps=levels,
        losses=[dict(type='PKDLoss')]) for n in (1, -1))
    for model in (frozen, free):
        step(model)
        learner = model.distillation.weighting.learner
        learner.remember(model.distillation.last_step.weights.record)
        transition, = learner.history
        assert transition.reward.isfinite().all() and transition.reward.any()


def test_nothing_that_gets_a_gradient_is_said(capfd):
    student = retinanet()
    student['backbone']['frozen_stages'] = 4
    levels = dict(feature=dict(path='backbone', index='all'))
    model = built(student, [dict(teacher(name, retinanet(12, 32)), taps=levels)
                            for name in 'ab'], weighting=GRADIENT, taps=levels,
                  losses=[dict(type='PKDLoss')])
    step(model)
    learner = model.distillation.weighting.learner
    for _ in range(2):
        learner.remember(model.distillation.last_step.weights.record)
        assert learner.update() == {}
    assert ''.join(capfd.readouterr()).count('has rewards') == 1


def test_terms_of_all_teachers_at_once_and_the_gradients_reward():
    with pytest.raises(ConfigError, match='GradientReward would take'):
        built(retinanet(), [teacher('a', retinanet(12, 32))],
              weighting=GRADIENT, losses=[
                  *FEATURES, dict(type='DistanceRelationLoss')])


def test_a_network_that_repeats_images_in_training(monkeypatch):
    """TridentNet's branches in training are more images for its neck."""
    model = built(retinanet(), [teacher('a', retinanet(12, 32))])
    read = Recording.output
    monkeypatch.setattr(Recording, 'output', lambda recording: Output(tuple(
        torch.cat([x] * 3) for x in read(recording).features)))
    with pytest.raises(ConfigError, match='of 2 images the student gives '
                       r'outputs for 6.*TridentNet'):
        model(torch.randn(2, 3, SIDE, SIDE), detection_samples(), mode='loss')


def test_score_maps_of_two_stage_detectors():
    with pytest.raises(ConfigError, match='task.scores: .*no dense head.*'
                       'task.scores=False'):
        built(detector(MASK_RCNN, 8, 32), [teacher('a', retinanet())],
              scores=True)


def test_images_that_grow_in_training():
    """YOLOX resizes each batch; masks follow."""
    student = yolox()
    student['data_preprocessor']['batch_augments'] = [dict(
        type='BatchSyncRandomResize', random_size_range=(32, 128),
        size_divisor=32, interval=1)]
    model = built(student, [teacher('a', yolox()), teacher('b', yolox())],
                  weighting=GRADIENT)
    preprocessor = model.data_preprocessor
    for side in (32, 96):
        preprocessor.batch_augments[0]._input_size = (side, side)
        data = preprocessor(dict(
            inputs=[torch.zeros(3, SIDE, SIDE)] * 2,
            data_samples=copy.deepcopy(detection_samples())), True)
        assert data['inputs'].shape[2] == side
        losses = model(**data, mode='loss')
        total, _ = model.parse_losses(losses)
        assert total.isfinite()


def test_a_teacher_at_its_own_scale():
    """With images of twice the size its strides count half: those of 8 to
    128 are the student's 4 to 64. Score maps cannot be compared."""
    large = dict(teacher('a', retinanet(12, 32)), input_scale=2)
    model = built(retinanet(), [large], weighting=GRADIENT)
    assert step(model)['loss_feature_FGDLoss'] > 0
    output, _ = next(iter(model.distillation.teachers))(
        Batch(torch.zeros(1, 3, 256, 256)))
    assert [f.shape[2] for f in output.features] == [32, 16, 8, 4]
    for given in (large, dict(teacher('a', retinanet()), input_size=256)):
        with pytest.raises(ValueError, match="'a' sees images in another size"
                           '.*task.scores=False'):
            built(retinanet(), [given], scores=True)


def test_networks_that_need_larger_images():
    """A deformable convolution needs three cells of the coarsest level."""
    deep = detector('mmdet::ddod/ddod_r50_fpn_1x_coco.py', 8, 64)
    deep['bbox_head'].update(in_channels=64, feat_channels=64)
    cfg = distilled(deep, [teacher('a', deep)], scores=True)
    del cfg['probe_size']
    init_default_scope('mmdet')
    model = MODELS.build(cfg)
    assert len(model.distillation.terms[0].projectors[0]) == 5


def test_mmkd_is_refused():
    with pytest.raises(ConfigError, match=r'MMKD keeps images.*AverageWeigh'):
        built(retinanet(), [teacher('a', retinanet())], scores=True,
              weighting=dict(type='MMKD'))


@pytest.mark.parametrize('change, message', [
    (dict(losses=[dict(type='KDLoss')]),
     r'KDLoss takes class scores through a softmax.*BinaryKDLoss'),
    (dict(losses=[dict(type='NDLoss')]), 'NDLoss'),
    (dict(weighting=dict(type='MTKDRL')), r'Reward.*GradientReward'),
    (dict(scores=False, losses=SCORES), r'needs class scores')])
def test_what_does_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        built(retinanet(), [teacher('a', retinanet(12, 32))],
              **dict(dict(scores=True), **change))


GFL = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'


def gfl(width=8, channels=64):
    cfg = detector(GFL, width, channels)
    cfg['bbox_head'].update(
        in_channels=channels, feat_channels=16, stacked_convs=1,
        num_classes=3, norm_cfg=dict(type='BN'))
    return cfg


@pytest.mark.parametrize('weighting', [
    dict(type='AEKD'), GRADIENT, dict(type='CAMKD', feature='teacher')])
def test_edges_of_boxes_and_teachers_heads(weighting):
    """The student's edges get a gradient from LDLoss, its neck one from
    CrossKDLoss, which leaves its head and the teachers alone."""
    losses = [dict(type='LDLoss'), dict(type='CrossKDLoss')]
    model = built(gfl(), [teacher('a', gfl(12, 32)), teacher('b', gfl(8, 16))],
                  scores=True, weighting=weighting, losses=losses)
    before = [p.clone() for t in model.distillation.teachers
              for p in t.model.parameters()]
    found = model(torch.randn(2, 3, SIDE, SIDE), detection_samples(),
                  mode='loss')
    for name, reached, left in (
            ('loss_logit', model.bbox_head.gfl_reg, model.bbox_head.gfl_cls),
            ('loss_feature', model.neck, model.bbox_head)):
        model.zero_grad()
        found[name].backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any()
                   for p in reached.parameters())
        assert not any(p.grad is not None and p.grad.any()
                       for p in left.parameters())
    after = [p for t in model.distillation.teachers
             for p in t.model.parameters()]
    assert all(torch.equal(a, b) and b.grad is None
               for a, b in zip(before, after))


def test_the_reward_subtracts_what_edges_give():
    """With LDLoss alone the features' gradient has a part that comes through
    the edges: the reward at the features is that of the own loss."""
    torch.manual_seed(0)
    rewards = []
    for weight in (0., 50.):
        model = built(
            gfl(), [teacher('a', gfl(12, 32)), teacher('b', gfl(8, 16))],
            scores=True, weighting=GRADIENT, losses=[
                dict(type='LDLoss', loss_weight=weight),
                dict(type='PKDLoss')])
        step(model)
        distillation = model.distillation
        *_, watched = distillation.last_step.weights.record
        rewards.append(distillation.weighting.learner.reward.earned(
            watched, torch.ones(())))
    assert rewards[0].shape == (2, 2, 2) and rewards[0].all()
    torch.testing.assert_close(rewards[0], rewards[1], rtol=2e-3, atol=1e-6)
