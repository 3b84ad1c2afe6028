"""Teachers of which only the backbone is run, for its inner layers."""

import pytest
import torch

from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from mmkd_rl.taps import Tap
from mmkd_rl.tasks import BackboneTask
from mmkd_rl.teachers import Normalization, TeacherPool
from tests.toy import classifier, flow_classifier, toy_runner, toy_teachers

TINY = dict(type='mmpretrain.ResNet', depth=18, base_channels=4,
            stem_channels=4, out_indices=(0, 1, 2, 3))
CAFFE = dict(mean=[70., 100., 150.], std=[30., 60., 90.], to_rgb=False)
IMAGENET = dict(mean=[123.7, 116.3, 103.5], std=[58., 57., 56.], to_rgb=True)


def build(cfg, scope=None):
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.build(cfg)


def shuffled(model):
    """Set weights and statistics to values that no initialisation gives."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(.1 * torch.rand(value.shape))
    model.eval()
    return model


def saved(model, path, wrap='state_dict', prefix=''):
    state = {prefix + n: t for n, t in model.state_dict().items()}
    torch.save({wrap: state} if wrap else state, path)
    return str(path)


def backbones(teachers):
    return TeacherPool(teachers, BackboneTask())


def read(cfg, images, path=''):
    """The only feature of the only teacher."""
    pool = backbones([dict(name='t', **cfg)])
    network = pool[0].root
    pool.listen([[Tap(network, path or list(dict(
        network.named_children()))[-1])]])
    (feature, ), = pool.inner(images, [True])
    return pool, feature


@pytest.fixture
def resnet():
    return shuffled(build(TINY))


def expected(resnet, images):
    with torch.no_grad():
        return resnet(images)[-1]


IMAGES = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize('wrap, prefix', [
    ('state_dict', ''), ('state_dict', 'backbone.'), ('model', ''),
    (None, 'backbone.'), ('state_dict', 'student.backbone.'),
    ('state_dict', 'module.backbone.'),
])
def test_checkpoints_of_backbones_and_of_whole_models(tmp_path, resnet, wrap,
                                                      prefix):
    """Heads in a checkpoint, with any number of classes, are ignored."""
    state = {prefix + n: t for n, t in resnet.state_dict().items()}
    root = prefix.removesuffix('backbone.')
    if prefix:
        state[root + 'head.fc.weight'] = torch.zeros(77, 32)
    torch.save({wrap: state} if wrap else state, tmp_path / 'a.pth')
    _, feature = read(dict(config=TINY, checkpoint=str(tmp_path / 'a.pth')),
                      IMAGES)
    assert torch.equal(feature, expected(resnet, IMAGES))


def whole(kind):
    if kind == 'classifier':
        return dict(
            type='ImageClassifier', backbone=dict(TINY, type='ResNet'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=9, in_channels=32)
        ), 'mmpretrain'
    if kind == 'detector':
        pytest.importorskip('mmdet')
        from mmengine.hub import get_config
        cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
        cfg.model.backbone.update(base_channels=4, stem_channels=4,
                                  init_cfg=None)
        cfg.model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
        cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
        return cfg.model.to_dict(), 'mmdet'
    pytest.importorskip('mmseg')
    from mmengine.hub import get_config
    cfg = get_config(
        'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py')
    bn = dict(type='BN')
    cfg.model.backbone.update(base_channels=4, stem_channels=4, norm_cfg=bn)
    cfg.model.decode_head.update(in_channels=32, channels=8, norm_cfg=bn)
    cfg.model.auxiliary_head.update(in_channels=16, channels=8, norm_cfg=bn)
    cfg.model.pretrained = None
    return cfg.model.to_dict(), 'mmseg'


@pytest.mark.parametrize('kind', ['classifier', 'detector', 'segmentor'])
@pytest.mark.parametrize('given', ['file', 'dict', 'backbone'])
def test_models_of_other_tasks(tmp_path, kind, given):
    """Only the backbone is built, from the package of its model, and it gets
    the images that its own preprocessor would make."""
    cfg, package = whole(kind)
    model = shuffled(build(dict(cfg), package))
    path = saved(model, tmp_path / 'a.pth')
    config = cfg
    if given == 'file':
        (tmp_path / 'a.py').write_text(
            f'model = {cfg!r}\ndefault_scope = {package!r}\n')
        config = str(tmp_path / 'a.py')
    elif given == 'dict':
        config = dict(cfg, type=f'{package}.{cfg["type"]}')
    else:
        config = dict(cfg['backbone'],
                      type=f'{package}.{cfg["backbone"]["type"]}')
    pool, feature = read(dict(config=config, checkpoint=path), IMAGES)
    assert type(pool[0].root) is type(model.backbone)
    assert not any('head' in n for n, _ in pool[0].root.named_modules())
    with torch.no_grad():
        assert torch.equal(feature, model.backbone(IMAGES)[-1])
    if cfg.get('data_preprocessor') and given != 'backbone':
        assert pool[0].normalization == Normalization.of(
            model.data_preprocessor)


def test_a_config_of_an_installed_package(tmp_path):
    pytest.importorskip('mmdet')
    pool = backbones([dict(
        name='t', checkpoint='untrained',
        config='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')])
    assert type(pool[0].root).__module__.startswith('mmdet.')
    norm = pool[0].normalization
    assert norm.to_rgb and norm.mean == pytest.approx((123.675, 116.28,
                                                       103.53))


@pytest.mark.parametrize('preprocessor, explicit', [
    (CAFFE, None), (None, CAFFE), (IMAGENET, CAFFE)])
def test_another_normalisation_sees_the_same_pixels(tmp_path, resnet,
                                                    preprocessor, explicit):
    """The teacher's feature equals that with its own preprocessing."""
    cfg = dict(type='mmpretrain.ImageClassifier', backbone=TINY)
    if preprocessor:
        cfg['data_preprocessor'] = preprocessor
    teacher = dict(config=cfg, checkpoint=saved(
        resnet, tmp_path / 'a.pth', prefix='backbone.'))
    if explicit:
        teacher['normalization'] = explicit
    own = build(dict(type='mmpretrain.ClsDataPreprocessor',
                     **(explicit or preprocessor)))
    student = build(dict(type='mmpretrain.ClsDataPreprocessor', **IMAGENET))
    pictures = [torch.randint(256, (3, 32, 32), dtype=torch.uint8)
                for _ in range(2)]
    theirs, mine = (p(dict(inputs=pictures))['inputs'] for p in (own, student))
    pool, unadapted = read(teacher, mine)
    pool.adapt(Normalization.of(student))
    (feature, ), = pool.inner(mine, [True])
    torch.testing.assert_close(feature, expected(resnet, theirs), rtol=1e-4,
                               atol=1e-4)
    assert not torch.allclose(unadapted, feature, rtol=.1, atol=.1)


@pytest.mark.parametrize('size, shape', [(64, (2, 2)), ((32, 96), (1, 3)),
                                         (None, (1, 1))])
def test_another_input_size(resnet, size, shape):
    teacher = dict(config=TINY, checkpoint='untrained')
    if size:
        teacher['input_size'] = size
    _, feature = read(teacher, IMAGES)
    assert feature.shape == (2, 32, *shape)


def test_untrained_is_random_and_frozen():
    """Weights follow init_cfg (Sec. 7.4.1), without gradient, in eval mode."""
    pool, feature = read(dict(config=TINY, checkpoint='untrained'), IMAGES)
    network = pool[0].root
    pool[0].train()
    assert not network.training and not feature.requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    other, another = read(dict(config=TINY, checkpoint='untrained'), IMAGES)
    assert not torch.equal(feature, another)
    kaiming = (2 / (4 * 9))**.5  # of fan_out, of a 3x3 to 4 channels
    assert network.layer1[0].conv1.weight.std().item() == pytest.approx(
        kaiming, rel=.3)


def test_the_gone_are_not_run():
    pool = backbones([
        dict(name=n, config=TINY, checkpoint='untrained') for n in 'ab'])
    calls = []
    for teacher in pool:
        teacher.root.register_forward_hook(
            lambda *_, name=teacher.name: calls.append(name))
    pool.listen([[Tap(t.root, 'layer1'), Tap(t.root, 'layer2')]
                 for t in pool])
    first = pool.inner(IMAGES, [True, True])
    assert calls == ['a', 'b']
    assert [f.shape[1] for f in first[0]] == [4, 8]
    second = pool.inner(IMAGES, [False, True])
    assert calls == ['a', 'b', 'b']
    assert second[0] == () and all(map(torch.equal, second[1], first[1]))
    pool.inner(IMAGES, [True, False])
    assert calls == ['a', 'b', 'b', 'a']


def test_what_knowledge_flow_has_trained_is_a_teacher(tmp_path):
    """Config and checkpoint of a run with Knowledge Flow can be used unchanged
    as a teacher in both kinds of pool."""
    first = flow_classifier(toy_teachers(tmp_path))
    runner = toy_runner(tmp_path / 'a', first, epochs=1,
                        hooks=[dict(type='KnowledgeFlowHook')])
    runner.train()
    runner.model.eval()
    teacher = dict(name='kf', config=first,
                   checkpoint=str(tmp_path / 'a' / 'epoch_1.pth'))
    images = torch.randn(2, 3, 4, 4)
    pool, feature = read({k: v for k, v in teacher.items() if k != 'name'},
                         images, 'conv')
    assert torch.equal(feature, runner.model.backbone(images)[0])
    assert 'knowledge_flow' not in dict(pool[0].root.named_children())
    distiller = MODELS.build(dict(
        type='mmkd_rl.MultiTeacherDistiller', probe_size=4,
        student=classifier(), teachers=[teacher]))
    output, = distiller.distillation.teachers(Batch(images))
    assert torch.equal(output.logits[0], runner.model(images))
    other = MODELS.build(flow_classifier([teacher]))
    assert other.backbone.knowledge_flow.teacher_names == ('kf', )


def test_nan_is_said_with_the_first_batch(resnet):
    pool, _ = read(dict(config=TINY, checkpoint='untrained'), IMAGES)
    pool._looked_at.clear()
    with pytest.raises(FloatingPointError, match=r"teachers \['t'\] gave NaN"):
        pool.inner(IMAGES * torch.nan, [True])


@pytest.mark.parametrize('teacher, error, message', [
    (dict(config=TINY), ValueError, "teacher 't' has no checkpoint.*'untrain"),
    (dict(config=TINY, checkpoint='no.pth'), FileNotFoundError,
     "teacher 't': checkpoint='no.pth': no such file"),
    (dict(checkpoint='untrained'), ValueError, "teacher 't' has no config"),
    (dict(config='no.py', checkpoint='untrained'), FileNotFoundError,
     "'no.py': no such config"),
    (dict(config=dict(depth=18), checkpoint='untrained'), ValueError,
     'has no model'),
    (dict(config=dict(type='NoNet'), checkpoint='untrained'), ValueError,
     "teacher 't': NoNet is not in"),
    (dict(config=TINY, checkpoint='untrained', taps={}), ValueError,
     r"teachers\[0\] has unknown \['taps'\]"),
    (dict(config=TINY, checkpoint='untrained', input_size=0), ValueError,
     "teacher 't': input_size"),
    (dict(config=TINY, checkpoint='untrained',
          normalization=dict(mean=[0], std=[0])), ValueError,
     r"teacher 't': normalization.std must be > 0, got \[0\]"),
])
def test_refusals(teacher, error, message):
    with pytest.raises(error, match=message):
        backbones([dict(name='t', **teacher)])


def test_checkpoints_that_do_not_fit(tmp_path, resnet):
    path = saved(resnet, tmp_path / 'a.pth', prefix='backbone.')
    for change, message in ((dict(depth=34), 'missing: '),
                            (dict(base_channels=8), 'of another shape: ')):
        with pytest.raises(ValueError, match='does not fit ResNet.*' +
                           message):
            backbones([dict(name='t', config=dict(TINY, **change),
                              checkpoint=path)])
    resnet.conv1.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match='NaN or infinite values in 1 weigh'):
        backbones([dict(name='t', config=TINY,
                          checkpoint=saved(resnet, tmp_path / 'b.pth'))])


def test_images_that_are_too_small():
    """The message names the teacher."""
    teacher = dict(name='t', config=dict(type='mmkd_rl.ToyBackbone'),
                   checkpoint='untrained')
    with pytest.raises(ValueError, match="teacher 't' fails on images of "
                       r'shape \(2, 3, 2, 2\).*input_size='):
        backbones([teacher])[0].try_on(Batch(torch.zeros(2, 3, 2, 2)))


def test_a_backbone_with_a_preprocessor_beside_it():
    """The preprocessor in a model's config gives the normalisation."""
    norm = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
    pool = backbones([dict(
        name='t', checkpoint='untrained',
        config=dict(type='mmkd_rl.ToyBackbone', data_preprocessor=norm))])
    assert type(pool[0].root).__name__ == 'ToyBackbone'
    plain = backbones([dict(
        name='t', checkpoint='untrained', normalization=norm,
        config=dict(type='mmkd_rl.ToyBackbone'))])
    target = Normalization((9., 9., 9.), (2., 2., 2.), False)
    images = torch.randn(2, 3, 4, 4)
    adapted = []
    for each in (pool, plain):
        each.adapt(target)
        adapted.append(each[0].tapped.adapter(images))
    assert torch.equal(*adapted) and not torch.equal(adapted[0], images)
    with pytest.raises(TypeError, match="teacher 't'.*widht"):
        backbones([dict(name='t', checkpoint='untrained', config=dict(
            type='mmkd_rl.ToyBackbone', widht=3))])
