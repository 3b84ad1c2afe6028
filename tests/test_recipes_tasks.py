"""Which task and which terms a distillation gets from the heads of student and
teachers."""

import pytest

import mmkd_rl
from mmkd_rl.losses import BinaryKDLoss, CWDLogitLoss, FGDLoss
from mmkd_rl.utils.configs import load_config
from tests.test_recipes import PSPNET, RESNET, RETINANET, TEACHER, built


@pytest.mark.parametrize('path, strategy', [
    (RETINANET, 'mtkd_rl'), (PSPNET, 'mtkd_rl'), (PSPNET, 'aver')])
def test_a_detector_or_segmentor(path, strategy):
    """Of a detector scores and features are distilled, of a segmentor the
    scores; if training counts iterations, so does the agent."""
    pytest.importorskip(path.partition('::')[0])
    given = load_config(path)
    given.model.backbone.init_cfg = None
    cfg = mmkd_rl.distill(given, strategy, [f'a={path}:untrained'])
    segments = path == PSPNET
    assert cfg.model.task == (
        dict(type='SegmentationTask') if segments else
        dict(type='DetectionTask', scores=True))
    terms = built(cfg).distillation.terms
    assert [type(t) for t in terms] == (
        [CWDLogitLoss] if segments else [BinaryKDLoss, FGDLoss])
    if strategy == 'mtkd_rl':
        hook = next(h for h in cfg.custom_hooks
                    if 'AgentAlternation' in h.type)
        assert (hook.by_epoch, hook.interval) == (
            (True, 1) if path == RETINANET else (False, 800))


@pytest.mark.parametrize('strategy', ['aver', 'mtkd_rl'])
def test_a_detector_of_images_with_one_channel(strategy):
    """Without a size of its own, the grey images have the model's channels."""
    pytest.importorskip('mmdet')
    given = load_config(RETINANET)
    given.model.backbone.update(init_cfg=None, in_channels=1)
    given.model.data_preprocessor.update(mean=[120.], std=[60.],
                                         bgr_to_rgb=False)
    cfg = mmkd_rl.distill(given, strategy, [dict(
        name='a', config=given, checkpoint='untrained')])
    term = built(cfg).distillation.terms[-1]
    assert len(term.projectors[0]) == 5


@pytest.mark.parametrize('config', [
    'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py',
    'mmpretrain::vgg/vgg16_8xb16_voc.py'])
def test_images_with_several_labels(config, capsys):
    """Scores of labels that do not exclude each other are no distribution."""
    cfg = mmkd_rl.distill(config, 'mtkd_rl', [f'a={config}:untrained'])
    assert cfg.model.task == dict(type='FeatureTask', levels='last')
    assert cfg.model.weighting.reward.type == 'GradientReward'
    assert 'scores each label by itself' in capsys.readouterr().out
    plain = mmkd_rl.distill(RESNET, 'mtkd_rl', [TEACHER])
    assert 'task' not in plain.model
    # A teacher's, too.
    cfg = mmkd_rl.distill(RESNET, 'mtkd_rl', [TEACHER, f'b={config}:x'])
    assert cfg.model.task == dict(type='FeatureTask', levels='last')
    assert "teacher 'b' has" in capsys.readouterr().out


def test_mixed_labels_are_not_several_labels():
    """MMPretrain's models for mixup have a head of several labels with the
    loss of a softmax."""
    mixup = 'mmpretrain::resnet/resnet50_8xb32-mixup_in1k.py'
    cfg = mmkd_rl.distill(mixup, 'aver', [f'a={mixup}:untrained'])
    assert 'task' not in cfg.model
    terms = built(cfg).distillation.terms
    assert {term.reads for term in terms} == {'features', 'logits'}


SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
MASKS = ('mmseg::segmenter/'
         'segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py')


@pytest.mark.parametrize('student, teacher, task', [
    (PSPNET, PSPNET, 'SegmentationTask'),
    (SEGFORMER, SEGFORMER, 'SegmentationTask'),
    (PSPNET, MASKS, 'FeatureTask'), (MASKS, PSPNET, 'FeatureTask')])
def test_the_task_follows_from_the_heads(student, teacher, task, capsys):
    pytest.importorskip('mmseg')
    cfg = mmkd_rl.distill(student, 'aver', [f'a={teacher}:untrained'])
    assert cfg.model.task.type == task
    # Terms of segmentors.
    if task == 'SegmentationTask':
        assert cfg.model.logit_loss == dict(type='mmkd_rl.CWDLogitLoss')
        assert cfg.model.feature_loss is None
    else:
        assert cfg.model.logit_loss is None
        assert cfg.model.feature_loss == dict(
            type='mmkd_rl.FitNetLoss', loss_weight='auto', ratio=10.,
            standardize=True)
    own = mmkd_rl.distill(student, 'aver', [f'a={teacher}:untrained'],
                          terms=[dict(type='FitNetLoss')])
    assert own.model.losses == [dict(type='FitNetLoss')]
    # Also of a strategy that is given by its type, and not a user's own.
    by_type = mmkd_rl.distill(student, 'AverageWeighting',
                              [f'a={teacher}:untrained'])
    for key in ('logit_loss', 'feature_loss'):
        assert by_type.model.get(key) == cfg.model[key]
    mine = dict(type='FitNetLoss', loss_weight=5., standardize=True)
    chosen = mmkd_rl.distill(student, 'aver', [f'a={teacher}:untrained'],
                             feature_loss=mine)
    assert chosen.model.feature_loss == mine
    # Also where the task is given by hand.
    by_hand = mmkd_rl.distill(student, 'aver', [f'a={teacher}:untrained'],
                              task=dict(type='FeatureTask'))
    assert by_hand.model.feature_loss.ratio == 10
    assert by_hand.model.logit_loss is None
    if task == 'FeatureTask':
        who = 'the student' if student == MASKS else "teacher 'a'"
        assert f'{who} has SegmenterMaskTransformerHead' in \
            capsys.readouterr().out
        assert cfg.model.task.levels == 'last'


@pytest.mark.parametrize('change, reason', [
    # One channel for two classes has scores.
    (dict(num_classes=2, out_channels=1,
          loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)), None),
    (dict(loss_decode=[dict(type='CrossEntropyLoss', use_sigmoid=True)]),
     'sigmoid'),
    # By the classes' defaults.
    (dict(loss_decode=[dict(type='FocalLoss'), dict(type='DiceLoss')]),
     'sigmoid'),
    (dict(loss_decode=[dict(type='CrossEntropyLoss'),
                       dict(type='DiceLoss')]), None)])
def test_heads_without_a_softmax(change, reason, capsys):
    pytest.importorskip('mmseg')
    given = load_config(PSPNET)
    given.model.decode_head.update(change)
    cfg = mmkd_rl.distill(given, 'aver', [f'a={PSPNET}:untrained'])
    assert cfg.model.task.type == (
        'FeatureTask' if reason else 'SegmentationTask')
    assert (reason or '') in capsys.readouterr().out


def test_a_teacher_of_another_task():
    pytest.importorskip('mmseg')
    with pytest.raises(ValueError, match=(
            r"teacher 'a'.*\(ImageClassifier\) classifies images.*student "
            r'\(EncoderDecoder\) segments.*--task FeatureTask')):
        mmkd_rl.distill(PSPNET, 'aver', [TEACHER])
    given = load_config(PSPNET)
    given.model.update(pretrained=None)
    given.model.backbone.init_cfg = None
    cfg = mmkd_rl.distill(given, 'aver', [f'a={RESNET}:untrained'],
                          task=dict(type='FeatureTask'))
    assert cfg.model.task == dict(type='FeatureTask', levels='last')
    # Maps, not the classifier's mean over space.
    term, = built(cfg).distillation.terms
    assert term.projectors[0][0].as_map


def test_two_classes_in_one_channel_or_two():
    """A student with one channel and a teacher with two, and the reverse."""
    pytest.importorskip('mmseg')
    one, two = load_config(PSPNET), load_config(PSPNET)
    for cfg in (one, two):
        cfg.model.update(auxiliary_head=None, pretrained=None)
        cfg.model.backbone.init_cfg = None
        cfg.model.decode_head.num_classes = 2
    one.model.decode_head.update(
        out_channels=1,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    for student, teacher in ((one, two), (two, one)):
        distilled = built(mmkd_rl.distill(student, 'aver', [dict(
            name='a', checkpoint='untrained', config=dict(
                default_scope='mmseg', model=teacher.model))]))
        assert distilled.distillation.reads_classes


DETR = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'
FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
ATSS = 'mmdet::atss/atss_r50_fpn_1x_coco.py'


@pytest.mark.parametrize('student, teacher, reason', [
    (RETINANET, RETINANET, None), (FCOS, ATSS, None),
    (RETINANET, FCOS, 'one anchor or point at each location'),
    (RETINANET, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
     "teacher 'a': it has no dense head"),
    (DETR, RETINANET, 'the student: DETRHead gives no scores'),
    ('mmdet::tood/tood_r50_fpn_1x_coco.py', ATSS, 'probabilities'),
    ('mmdet::ssd/ssd300_coco.py', 'mmdet::ssd/ssd300_coco.py', 'softmax')])
def test_whose_scores_can_be_compared(student, teacher, reason, capsys):
    """The configs are not changed by looking at their heads."""
    pytest.importorskip('mmdet')
    given = load_config(student)
    cfg = mmkd_rl.distill(given, 'mtkd_rl', [f'a={teacher}:untrained'])
    assert cfg.model.task == dict(type='DetectionTask', scores=reason is None)
    assert cfg.model.weighting.reward.type == 'GradientReward'
    said = capsys.readouterr().out
    if reason is None:
        assert 'features alone' not in said
    else:
        assert reason in said and 'features alone are distilled' in said
        assert cfg.model.logit_loss is None
    # DETR's head would put a tensor into it.
    assert cfg.model.student.to_dict() == given.model.to_dict()


@pytest.mark.parametrize('option, scores', [
    (dict(), True), (dict(input_scale=1), True),
    (dict(input_scale=1.5), False), (dict(input_size=512), False)])
def test_anchors_of_a_teacher_that_sees_another_size(option, scores, capsys):
    pytest.importorskip('mmdet')
    cfg = mmkd_rl.distill(RETINANET, 'aver', [dict(
        name='a', config=RETINANET, checkpoint='untrained', **option)])
    assert cfg.model.task.scores is scores
    assert ("'a' sees images in another size" in capsys.readouterr().out
            ) is not scores


def test_a_class_map_is_left_out_where_features_are_distilled(capsys):
    pytest.importorskip('mmdet')
    given = dict(name='a', config=RETINANET, checkpoint='untrained',
                 class_map=list(range(80)))
    mask = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    cfg = mmkd_rl.distill(RETINANET, 'aver', [given, f'b={mask}:untrained'])
    assert 'class_map' not in cfg.model.teachers[0] and 'class_map' in given
    assert 'class_map has no effect on features' in capsys.readouterr().out


def test_a_class_map_makes_scores_comparable():
    pytest.importorskip('mmdet')
    student = load_config(RETINANET)
    student.model.bbox_head.num_classes = 2
    for class_map, scores in ((None, False), ([0, 7], True)):
        teacher = dict(name='a', config=RETINANET, checkpoint='untrained',
                       **({} if class_map is None else dict(
                           class_map=class_map)))
        cfg = mmkd_rl.distill(student, 'aver', [teacher])
        assert cfg.model.task.scores is scores
