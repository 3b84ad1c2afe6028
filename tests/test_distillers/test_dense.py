"""Detectors and segmentors of the installed packages as students: teachers
with other widths and strides, all levels of the neck, padding is left out, and
MMDetection's hooks work."""

import numpy as np
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch.utils.data import Dataset

from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.registry import DATASETS, MODELS
from mmkd_rl.teachers.loading import init_untrained
from tests.toy import toy_runner

SIDE = 64
#: Sizes of the images before padding.
SHAPES = [(SIDE, SIDE), (40, 32)]
FEATURES = dict(type='FeatureTask')
AGENT = dict(type='MTKDRL', reward=dict(type='DistanceReward'))

RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
DETR = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


def detector(path, width=8, out_channels=None, strides=None):
    """A detector's config with a small ResNet."""
    pytest.importorskip('mmdet')
    cfg = get_config(path).model
    backbone, neck = cfg.backbone, cfg.neck
    backbone.update(
        init_cfg=None, depth=18, base_channels=width, frozen_stages=-1,
        style='pytorch', norm_cfg=dict(type='BN', requires_grad=True))
    if strides is not None:
        backbone.strides = strides
    neck.in_channels = [width * 2**i for i in backbone.out_indices]
    if out_channels is not None:
        neck.out_channels = out_channels
        if neck.get('norm_cfg'):
            neck.norm_cfg.num_groups = 4
    if cfg.get('encoder'):
        cfg.encoder.num_layers = cfg.decoder.num_layers = 1
    return cfg.to_dict()


def detection_samples():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    samples = []
    for shape in SHAPES:
        sample = DetDataSample(metainfo=dict(
            img_shape=shape, ori_shape=shape, scale_factor=(1., 1.),
            pad_shape=(SIDE, SIDE), batch_input_shape=(SIDE, SIDE)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[4., 8., 30., 30.]]),
            labels=torch.tensor([2]),
            masks=BitmapMasks(np.ones((1, SIDE, SIDE), np.uint8), SIDE, SIDE))
        samples.append(sample)
    return samples


def segmentor(width=8, strides=(1, 2, 1, 1)):
    pytest.importorskip('mmseg')
    cfg = get_config(PSPNET).model
    cfg.pretrained = None
    norm = dict(type='BN', requires_grad=True)  # one process
    cfg.backbone.update(norm_cfg=norm, base_channels=width, strides=strides)
    cfg.decode_head.update(norm_cfg=norm, in_channels=8 * width, channels=8,
                           pool_scales=(1, 2))
    cfg.auxiliary_head.update(norm_cfg=norm, in_channels=4 * width, channels=8)
    cfg.data_preprocessor.size = (SIDE, SIDE)
    return cfg.to_dict()


def segmentation_samples():
    from mmseg.structures import SegDataSample
    samples = []
    for shape in SHAPES:
        sample = SegDataSample(metainfo=dict(
            img_shape=shape, pad_shape=(SIDE, SIDE)))
        label = torch.full((1, SIDE, SIDE), 255)
        label[:, :shape[0], :shape[1]] = 2
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    return samples


def teacher(name, config):
    return dict(name=name, config=config, checkpoint='untrained')


def distilled(student, teachers, **kwargs):
    return dict(
        type='mmkd_rl.MultiTeacherDistiller', student=student,
        teachers=teachers, task=FEATURES, probe_size=SIDE, **kwargs)


CASES = dict(
    retinanet=lambda: ('mmdet', detector(RETINANET), [
        teacher('wide', detector(RETINANET, 12, 128)),
        teacher('fine', detector(RETINANET, 8, strides=(1, 2, 2, 1)))
    ], detection_samples(), 'neck', 5),
    mask_rcnn=lambda: ('mmdet', detector(MASK_RCNN), [
        teacher('wide', detector(MASK_RCNN, 12, 64)),
        teacher('fine', detector(MASK_RCNN, 8, strides=(1, 2, 2, 1)))
    ], detection_samples(), 'neck', 5),
    detr=lambda: ('mmdet', detector(DETR), [
        teacher('wide', detector(DETR, 12, 64)),
        teacher('fine', detector(DETR, 8, strides=(1, 2, 2, 1)))
    ], detection_samples(), 'neck', 4),
    pspnet=lambda: ('mmseg', segmentor(), [
        teacher('wide', segmentor(12)),
        teacher('coarse', segmentor(8, (1, 2, 2, 1)))
    ], segmentation_samples(), 'backbone', 4))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', CASES)
def test_features_of_all_levels(name):
    """Equal weights and those of an agent: every projector and the student
    learn; padding gives no gradient."""
    package, student, teachers, samples, tapped, levels = CASES[name]()
    init_default_scope(package)
    for weighting in (dict(type='AverageWeighting'), AGENT):
        torch.manual_seed(0)
        model = MODELS.build(distilled(
            student, teachers, weighting=weighting)).train()
        # As in a runner; before this a DETR has parameters without values.
        init_untrained(model)
        maps = []

        def keep(module, args, output, maps=maps):
            for level in output:
                level.retain_grad()
                maps.append(level)

        model.get_submodule(tapped).register_forward_hook(keep)
        images = torch.randn(2, 3, SIDE, SIDE)
        losses = model(images, samples, mode='loss')
        distillation = model.distillation
        weights = distillation.last_step.weights.feature
        assert weights.shape == (2, 2)
        torch.testing.assert_close(weights.sum(1), torch.ones(2))
        total, logged = model.parse_losses(losses)
        assert logged['loss_feature'] > 0 and len(logged) > 2
        assert total.isfinite()

        logged['loss_feature'].backward()
        term, = distillation.terms
        assert [len(of_teacher) for of_teacher in term.projectors] == [
            levels, levels]
        for parameter in term.projectors.parameters():
            assert parameter.grad.any()
        # The first layer: a block's residual branch is zero at first.
        stem = getattr(model.backbone, 'conv1', None) or \
            model.backbone.stem[0]  # segmentors have ResNet-D
        assert stem.weight.grad.any()
        # Of the second image only the part without padding counts.
        # The level from which no other level is computed: the last one of a
        # backbone, the first one of a neck.
        first = maps[-1 if tapped == 'backbone' else 0].grad
        height, width = first.shape[2:]
        rows, columns = (-(-n * s // SIDE) for n, s in zip(
            SHAPES[1], (height, width)))
        # One row and column more: a coarser teacher's points can extend
        # beyond the image's edge.
        assert first[1, :, rows + 1:].abs().max() == 0
        assert first[1, :, :, columns + 1:].abs().max() == 0
        inside = first[1, :, :rows - 1, :columns - 1].abs()
        assert inside.amin((1, 2)).max() > 0
        assert first[0, :, rows + 1:].any()

        if weighting is AGENT:
            strategy = distillation.weighting
            strategy.learner.remember(distillation.last_step.weights.record)
            strategy.learner.update()
            model(images, samples, mode='loss')
            after = distillation.last_step.weights.feature
            torch.testing.assert_close(after.sum(1), torch.ones(2))
            assert (after - weights).abs().max() > 1e-4


@pytest.mark.filterwarnings('ignore')
def test_levels_that_do_not_pair():
    """A teacher with four levels beside a student with five."""
    init_default_scope('mmdet')
    with pytest.raises(ValueError, match=r"student has 5 .*teacher 'a' has 4"):
        MODELS.build(distilled(
            detector(RETINANET), [teacher('a', detector(DETR))]))


def test_models_that_call_a_loss_past_the_forward_pass_are_refused():
    """These are semi-supervised wrappers and MMDetection's own distillers."""
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    plain = detector(RETINANET)
    semi = dict(type='SemiBaseDetector', detector=plain,
                semi_train_cfg=dict(freeze_teacher=True),
                data_preprocessor=dict(
                    type='MultiBranchDataPreprocessor',
                    data_preprocessor=plain['data_preprocessor']))
    lad = dict(plain, type='KnowledgeDistillationSingleStageDetector',
               teacher_config=dict(model=plain))
    for student, message in ((semi, 'SemiBaseDetector.*without a forward'),
                             (lad, "MMDetection's own distillers")):
        with pytest.raises(ValueError, match=message):
            MODELS.build(distilled(student, [teacher('a', plain)]))


@DATASETS.register_module(force=True)
class Boxes(Dataset):
    """Data set of noise images with a box or a mask, in memory."""

    metainfo = dict(classes=tuple('abc'))

    def __init__(self, size=4, masks=False):
        self.size, self.masks = size, masks

    def __len__(self):
        return self.size

    def update_skip_type_keys(self, keys):
        """YOLOX's hook calls this to turn off the mosaic augmentation."""

    def __getitem__(self, index):
        samples = segmentation_samples() if self.masks else \
            detection_samples()
        return dict(
            inputs=torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8),
            data_samples=samples[0])


def loader(masks=False):
    return dict(
        batch_size=2, num_workers=0, persistent_workers=False,
        dataset=dict(type='mmkd_rl.Boxes', masks=masks),
        sampler=dict(type='DefaultSampler', shuffle=True))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['retinanet', 'pspnet'])
def test_without_weight_the_run_is_the_students_own(tmp_path, name):
    """With loss weight 0 the run is that of the student, bit for bit: with
    averaged weights, accumulated gradients and activation checkpointing, and
    with PSPNet's dropout, which draws random numbers. The checkpoints of both
    runs load into both models."""
    package, student, teachers, _, _, _ = CASES[name]()
    common = dict(
        epochs=2, default_scope=package, randomness=dict(seed=3),
        train_dataloader=loader(package == 'mmseg'),
        hooks=[dict(type='EMAHook', momentum=.3)],
        activation_checkpointing=['backbone'],
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1e-3), accumulative_counts=2,
            clip_grad=None))
    plain = toy_runner(tmp_path / 'a', student, **common)
    plain.train()
    ours = toy_runner(tmp_path / 'b', distilled(
        student, teachers, weighting=AGENT,
        feature_loss=dict(type='FitNetLoss', loss_weight=0.)), **common)
    ours.train()
    expected = plain.model.state_dict()
    found = {n: t for n, t in ours.model.state_dict().items()
             if not n.startswith('distillation.')}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key

    file = str(tmp_path / 'a' / 'epoch_2.pth')
    start = toy_runner(tmp_path / 'c', distilled(student, teachers),
                       **dict(common, hooks=[], load_from=file))
    start.load_or_resume()
    saved = torch.load(file, weights_only=False)['state_dict']
    for key, value in start.model.state_dict().items():
        if not key.startswith('distillation.'):
            assert torch.equal(value, saved[key]), key
    lacking = plain.model.load_state_dict(torch.load(
        tmp_path / 'b' / 'epoch_2.pth',
        weights_only=False)['state_dict'], strict=False)
    assert not lacking.missing_keys


def check_plain_model_loads(student, checkpoint):
    """A detector without teachers has all its weights in a run's
    checkpoint."""
    with MODELS.switch_scope_and_registry('mmdet') as registry:
        plain = registry.build(student)
    saved = torch.load(checkpoint, weights_only=False)
    lacking = plain.load_state_dict(saved['state_dict'], strict=False)
    assert not lacking.missing_keys
    assert all(n.startswith('distillation.') for n in lacking.unexpected_keys)


def yolox():
    cfg = get_config('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py').model
    cfg.backbone.update(deepen_factor=.33, widen_factor=.125)
    cfg.neck.update(in_channels=[32, 64, 128], out_channels=32,
                    num_csp_blocks=1)
    cfg.bbox_head.update(in_channels=32, feat_channels=32, num_classes=3)
    cfg.data_preprocessor.batch_augments = None
    return cfg.to_dict()


@pytest.mark.filterwarnings('ignore')
def test_hooks_of_mmdetection_reach_into_the_model(tmp_path):
    """YOLOX's mode switch sets ``bbox_head.use_l1``, the class count check
    finds the heads, EMA averages; the plain model loads the checkpoint."""
    pytest.importorskip('mmdet')
    student = yolox()
    runner = toy_runner(
        tmp_path, distilled(
            student, [teacher('a', yolox()), teacher('b', yolox())],
            weighting=AGENT),
        epochs=2, default_scope='mmdet', train_dataloader=loader(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-5)),
        hooks=[dict(type='YOLOXModeSwitchHook', num_last_epochs=1),
               dict(type='NumClassCheckHook'),
               dict(type='EMAHook', ema_type='ExpMomentumEMA'),
               dict(type='mmkd_rl.AgentAlternationHook')])
    runner.train()
    model = unwrapped(runner)
    assert type(model).__name__ == 'YOLOX' and model.bbox_head.use_l1
    assert model.distillation.weighting.learner.updates == 2
    heads = [n for n, m in model.named_modules() if n.endswith('head')]
    assert heads == ['bbox_head']
    check_plain_model_loads(student, tmp_path / 'epoch_2.pth')


def test_a_wrong_class_count_is_still_found(tmp_path):
    """MMDetection's hook finds the wrong class count in a distilled model."""
    pytest.importorskip('mmdet')
    student = yolox()
    student['bbox_head']['num_classes'] = 4
    runner = toy_runner(
        tmp_path, distilled(student, [teacher('a', yolox())]),
        epochs=1, default_scope='mmdet', train_dataloader=loader(),
        hooks=[dict(type='NumClassCheckHook')])
    with pytest.raises(AssertionError, match=r'`num_classes` \(4\)'):
        runner.train()


STRATEGIES = {
    'AverageWeighting': [], 'AEKD': [], 'AMTMLKD': [], 'EBKD': [],
    'CAMKD': [], 'MTKDRL': [
        dict(type='mmkd_rl.AgentAlternationHook', warmup=1, interval=1)],
    'MMKD': [dict(type='mmkd_rl.MetaWeightingHook', interval=1)]
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('terms', [
    {}, dict(losses=[dict(type='CWDLogitLoss')])], ids=['two', 'scores'])
@pytest.mark.parametrize('name', STRATEGIES)
def test_every_strategy_distils_scores_of_pixels(tmp_path, name, terms):
    """In a runner, with the strategy's own training; teachers of another
    resolution, and one that knows some classes only; KD and FitNet, and what
    segmentors have by default. The checkpoint loads into the plain
    student."""
    teachers = [teacher('wide', segmentor(12)),
                teacher('coarse', segmentor(8, (1, 2, 2, 1)))]
    if name != 'AMTMLKD':
        teachers[1]['class_map'] = [-1, *range(18)]
    model = distilled(segmentor(), teachers, weighting=dict(type=name),
                      **terms)
    model['task'] = dict(type='SegmentationTask')
    runner = toy_runner(
        tmp_path / 'run', model, epochs=2, default_scope='mmseg',
        train_dataloader=loader(True), hooks=STRATEGIES[name],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)))
    runner.train()
    weights = runner.model.distillation.last_step.weights
    for kind in (weights.logit, weights.feature):
        torch.testing.assert_close(kind.sum(1), torch.ones(2))
    learner = runner.model.distillation.weighting.learner
    assert learner is None or learner.updates
    saved = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    plain = MODELS.build(segmentor())
    found = plain.load_state_dict(saved['state_dict'], strict=False)
    assert not found.missing_keys
    assert all(k.startswith('distillation.') for k in found.unexpected_keys)


@pytest.mark.filterwarnings('ignore')
def test_images_of_changing_size_in_half_precision(tmp_path):
    """Multi-scale training in autocast, with a reward from the backward pass
    and an automatic weight; teachers see large images through a window."""
    from mmengine.optim import build_optim_wrapper
    wide = segmentor(12)
    wide['test_cfg'] = dict(mode='slide', crop_size=(48, 48), stride=(32, 32))
    student = segmentor()
    student['data_preprocessor'].update(size=None, size_divisor=16)
    init_default_scope('mmseg')
    model = MODELS.build({**distilled(
        student, [teacher('wide', wide),
                  teacher('coarse', segmentor(8, (1, 2, 2, 1)))],
        losses=[dict(type='CWDLogitLoss'), dict(
            type='FitNetLoss', standardize=True, loss_weight='auto')],
        weighting=dict(type='MTKDRL', reward=dict(type='GradientReward'))),
        'task': dict(type='SegmentationTask')})
    weighting = model.distillation.weighting
    weighting.learner.has_hook = True
    wrapper = build_optim_wrapper(model, dict(
        type='mmkd_rl.BFloat16OptimWrapper', precision='bfloat16',
        optimizer=dict(type='SGD', lr=1e-3)))
    for size in ((64, 64), (40, 72), (96, 48)):
        samples = segmentation_samples()
        for sample in samples:
            sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, *size)))
            sample.set_metainfo(dict(img_shape=size))
        logged = model.train_step(dict(
            inputs=[torch.rand(3, *size)] * 2, data_samples=samples), wrapper)
        assert all(torch.isfinite(torch.as_tensor(v))
                   for v in logged.values())
        weighting.learner.observe(model.distillation.last_step, None)
    rewards = torch.cat([t.reward for t in weighting.learner.history])
    assert rewards.shape == (6, 2, 2)
    assert rewards.isfinite().all() and rewards.std() > 0


def test_amtml_kd_mixes_no_teachers_of_other_classes():
    init_default_scope('mmseg')
    model = distilled(
        segmentor(), [dict(teacher('a', segmentor()),
                           class_map=[-1, *range(18)])],
        weighting=dict(type='AMTMLKD'))
    model['task'] = dict(type='SegmentationTask')
    with pytest.raises(ValueError, match='AMTMLKD mixes.*class_map'):
        MODELS.build(model)


@pytest.mark.parametrize('change, message', [
    (dict(weighting=dict(type='MTKDRL', reward=dict(type='HeldOutReward'))),
     'HeldOutReward.*each pixel'),
    (dict(losses=[dict(type='DKDLoss')]), 'DKDLoss takes one vector'),
    (dict(losses=[dict(type='NDLoss')]), 'NDLoss needs'),
    (dict(probe_size=16), "'student' gives a single pixel.*16x16"),
])
@pytest.mark.filterwarnings('ignore')
def test_what_scores_of_pixels_do_not_allow(change, message):
    init_default_scope('mmseg')
    model = dict(
        distilled(segmentor(strides=(1, 2, 2, 2)), [
            teacher('a', segmentor())]),
        task=dict(type='SegmentationTask'), **{'probe_size': SIDE, **change})
    with pytest.raises(ValueError, match=message):
        MODELS.build(model)(torch.randn(2, 3, SIDE, SIDE),
                            segmentation_samples(), mode='loss')
