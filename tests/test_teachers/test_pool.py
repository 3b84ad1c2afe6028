"""Teachers are frozen, are not part of the model's state, and get images as in
their training."""

import copy

import pytest
import torch

from mmkd_rl.losses.kd import kd_divergence
from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import InputAdapter, Normalization
from tests.toy import (
    ToyBackbone,
    World,
    classifier,
    distiller,
    samples,
    toy_teachers,
)

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
OTHER = dict(mean=[10., 120., 200.], std=[50., 1., 255.])


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return MODELS.build(distiller(toy_teachers(tmp_path)))


def teachers_of(model):
    return model.distillation.teachers


def preprocessor(to_rgb, mean, std):
    return dict(
        type='mmpretrain.ClsDataPreprocessor',
        to_rgb=to_rgb,
        mean=mean,
        std=std)


NONE = dict(mean=None, std=None)


@pytest.mark.parametrize('student_rgb', [False, True])
@pytest.mark.parametrize('teacher_rgb', [False, True])
@pytest.mark.parametrize('student, teacher', [(IMAGENET, OTHER),
                                              (OTHER, IMAGENET),
                                              (IMAGENET, IMAGENET),
                                              (NONE, IMAGENET),
                                              (IMAGENET, NONE)])
def test_a_teacher_sees_the_images_that_it_was_trained_on(
        student, teacher, student_rgb, teacher_rgb):
    """The teacher's own preprocessor, and the student's followed by the
    adapter, give the same images from raw pixels."""
    pixels = torch.randint(
        0, 256, (2, 3, 5, 6), dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0))
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        own, students = (
            registry.build(preprocessor(rgb, **n))
            for rgb, n in ((teacher_rgb, teacher), (student_rgb, student)))
    expected = own(dict(inputs=pixels.clone()))['inputs'].float()
    adapter = InputAdapter(Normalization.of(students), Normalization.of(own))
    seen = adapter(students(dict(inputs=pixels.clone()))['inputs'].float())
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('how', ['its config', 'the user'])
def test_normalization_through_the_whole_distiller(tmp_path, how):
    """The teacher's logits in the distiller equal those outside of it with its
    own preprocessor, for raw BGR pixels."""
    cfg, = toy_teachers(tmp_path, count=1, scale=.01)
    lone = classifier(5, data_preprocessor=preprocessor(True, **OTHER))
    if how == 'its config':
        cfg['config'] = lone
    else:
        cfg['normalization'] = dict(OTHER, to_rgb=True)
    model = MODELS.build(
        distiller([cfg], data_preprocessor=preprocessor(False, **IMAGENET)))
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        reference = registry.build(lone).eval()
    reference.load_state_dict(
        torch.load(cfg['checkpoint'])['state_dict'], strict=False)
    pixels = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8)
    expected = reference(
        reference.data_preprocessor(dict(inputs=pixels))['inputs'])
    output, = teachers_of(model)(
        Batch(model.data_preprocessor(dict(inputs=pixels))['inputs']))
    torch.testing.assert_close(
        output.logits[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('cfg', [
    dict(mean=[1, 2, 3]),
    dict(mean=[1, 2, 3], std=[1]),
    dict(IMAGENET, rgb=True),
    dict(mean=[0, 0, 0], std=[1, 0, 1]),
])
def test_bad_normalizations(tmp_path, cfg):
    teacher, = toy_teachers(tmp_path, count=1)
    with pytest.raises(ValueError, match="teacher 't0': normalization"):
        MODELS.build(distiller([dict(teacher, normalization=cfg)]))


def test_input_size(tmp_path):
    """A teacher for 4x4 images with a student for 8x8."""
    teacher, = toy_teachers(tmp_path, count=1)
    model = MODELS.build(
        distiller([dict(teacher, input_size=4)], probe_size=8))
    images = torch.rand(2, 3, 8, 8)
    output, = teachers_of(model)(Batch(images))
    assert output.features[0].shape == (2, 5, 1, 1)
    small = torch.nn.functional.interpolate(
        images, (4, 4), mode='bilinear', antialias=True)
    network = next(iter(teachers_of(model))).model
    torch.testing.assert_close(output.logits[0], network(small))


def test_input_scale(tmp_path):
    """Images of twice the student's height and width, whatever these are."""
    teacher, = toy_teachers(tmp_path, count=1)
    model = MODELS.build(distiller([dict(teacher, input_scale=2)],
                                   probe_size=8))
    for size in ((8, 8), (8, 12)):
        images = torch.rand(2, 3, *size)
        output, = teachers_of(model)(Batch(images))
        large = torch.nn.functional.interpolate(
            images, scale_factor=2, mode='bilinear', antialias=True)
        network = next(iter(teachers_of(model))).model
        torch.testing.assert_close(output.logits[0], network(large))


@pytest.mark.parametrize('options, message', [
    (dict(input_scale=0), 'input_scale must be a factor > 0.*got 0'),
    (dict(input_scale='2x'), "got '2x'"),
    (dict(input_scale=(2, 1)), r'got \(2, 1\)'),
    (dict(input_scale=2, input_size=8), 'exclude each other')])
def test_bad_input_scales(tmp_path, options, message):
    teacher, = toy_teachers(tmp_path, count=1)
    with pytest.raises(ValueError, match=f"teacher 't0'.*{message}"):
        MODELS.build(distiller([dict(teacher, **options)], probe_size=8))


def test_a_student_of_another_size_is_told_what_to_set(tmp_path):
    """The head of a toy network with a hidden layer needs images of 4x4."""
    with pytest.raises(ValueError, match='student fails on images of shape '
                       r'\(2, 3, 2, 2\).*probe_size'):
        MODELS.build(distiller(toy_teachers(tmp_path), probe_size=2))
    with pytest.raises(ValueError, match="teacher 'vit'.*input_size"):
        MODELS.build(
            distiller([
                dict(
                    name='vit',
                    config=dict(
                        type='mmpretrain.TimmClassifier',
                        model_name='vit_tiny_patch16_224',
                        depth=1,
                        num_classes=5),
                    taps=dict(feature='model.fc_norm'),
                    checkpoint='untrained')
            ]))


@pytest.mark.parametrize('config, channels', [
    (dict(
        type='mmpretrain.TimmClassifier',
        model_name='resnet18',
        num_classes=5), 512),
    (dict(
        type='mmkd_rl.TorchVisionClassifier',
        model_name='resnet18',
        num_classes=5), 512),
    (dict(
        type='mmkd_rl.TorchVisionClassifier',
        model_name='squeezenet1_1',
        num_classes=5), None),
])
def test_networks_of_timm_and_torchvision(tmp_path, config, channels):
    """Networks of timm and torchvision load their packages' checkpoints."""
    torch.manual_seed(0)
    if 'Timm' in config['type']:
        import timm
        network = timm.create_model(config['model_name'], num_classes=5)
    else:
        import torchvision
        network = torchvision.models.get_model(
            config['model_name'], num_classes=5)
    torch.save(network.state_dict(), tmp_path / 'net.pth')
    teacher = dict(
        name='net', config=config, checkpoint=str(tmp_path / 'net.pth'))
    if channels is None:  # no linear layer, so no default
        with pytest.raises(ValueError, match='linear.*taps=dict\\(feature='):
            MODELS.build(distiller([teacher], probe_size=64))
        teacher['taps'] = dict(feature='model.features')
        channels = 512
    model = MODELS.build(distiller([teacher], probe_size=64))
    network.eval()
    images = torch.rand(2, 3, 64, 64)
    output, = teachers_of(model)(Batch(images))
    torch.testing.assert_close(output.logits[0], network(images))
    assert output.features[0].shape[1] == channels


def test_torchvision_names_are_checked():
    with pytest.raises(ValueError, match='resnet_18'):
        MODELS.build(
            dict(type='mmkd_rl.TorchVisionClassifier',
                 model_name='resnet_18'))


def test_teachers_are_not_in_the_tree(model):
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        alone = registry.build(classifier(8, hidden=6))
    more = set(model.state_dict()) - set(alone.state_dict())
    assert set(alone.state_dict()) <= set(model.state_dict())
    assert more and all(n.startswith('distillation.terms.1.projectors.')
                        for n in more)
    own = {id(p) for p in model.parameters()}
    for teacher in teachers_of(model):
        assert not own & {id(p) for p in teacher.parameters()}
        assert not any(m is teacher.model for m in model.modules())


def test_copies_share_the_teachers(model):
    twin = copy.deepcopy(model)
    assert teachers_of(twin) is teachers_of(model)
    assert twin.distillation is not model.distillation
    # the taps of the copy read the copy's student
    with torch.no_grad():
        for p in (*twin.backbone.parameters(), *twin.head.parameters()):
            p.zero_()
    images, labels = World().batch(4)
    losses = twin(images, samples(labels), mode='loss')
    assert losses['loss_student'].item() == pytest.approx(1.6094, abs=1e-3)
    zeros = torch.zeros(4, 5)
    expected = torch.stack([
        kd_divergence(zeros, o.logits[0].unsqueeze(1), None, 4.)[:, 0]
        for o in teachers_of(model)(Batch(images))
    ]).mean()
    torch.testing.assert_close(losses['loss_logit'], expected)


def test_teachers_move_along(model):
    images = World().batch(2)[0]
    model.double()
    for teacher in teachers_of(model):
        assert all(p.dtype == torch.float64 for p in teacher.parameters())
    output, _ = teachers_of(model)(Batch(images.double()))
    assert output.logits[0].dtype == torch.float64
    model.to('meta')
    for teacher in teachers_of(model):
        assert all(p.is_meta for p in teacher.parameters())


def test_teachers_stay_in_eval_and_without_gradient(tmp_path):
    teacher = dict(
        name='bn',
        config=dict(
            type='mmkd_rl.TorchVisionClassifier',
            model_name='resnet18',
            num_classes=5),
        checkpoint='untrained')
    model = MODELS.build(distiller([teacher], probe_size=32)).train()
    network = next(iter(teachers_of(model)))
    network.train()
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    output, = teachers_of(model)(
        Batch(torch.rand(4, 3, 32, 32, requires_grad=True)))
    assert len(output.tensors()) == 2
    for tensor in output.tensors():
        assert not tensor.requires_grad
        # not an inference tensor, as the student's losses must save it
        assert not tensor.is_inference()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_nan_on_the_first_batch_stops_at_once(model):
    images, labels = World().batch(4)
    images[1] = float('nan')
    with pytest.raises(FloatingPointError, match=r"\['t0', 't1'\] gave NaN"):
        model(images, samples(labels), mode='loss')


def test_a_later_nan_is_remembered_and_named(model):
    images, _ = World().batch(4)
    teachers_of(model)(Batch(images))
    teachers_of(model).check_finite()
    bad = list(teachers_of(model))[1]
    weight = bad.model.head.fc.weight.data
    kept = weight.clone()
    weight[0, 0] = float('inf')
    # no check here, as it would wait for the device
    teachers_of(model)(Batch(images))
    weight.copy_(kept)
    teachers_of(model)(Batch(images))
    with pytest.raises(FloatingPointError, match=r"\['t1'\] gave NaN"):
        teachers_of(model).check_finite()


@pytest.mark.parametrize('precision, inside', [
    (None, torch.bfloat16), ('bfloat16', torch.bfloat16),
    ('float32', torch.float32)])
@pytest.mark.parametrize('student', [torch.float32, torch.bfloat16])
def test_a_precision_of_its_own(tmp_path, precision, inside, student):
    """A teacher with a precision computes in it, independently of the student,
    and its outputs are float32; otherwise it has the student's precision."""
    first, second = toy_teachers(tmp_path)
    if precision:
        first['precision'] = precision
    teacher, other = teachers_of(MODELS.build(distiller([first, second])))
    images, _ = World().batch(4)
    if precision is None:
        inside = student
    with torch.no_grad(), torch.autocast('cpu', dtype=inside,
                                         enabled=inside != torch.float32):
        expected = teacher.model(images, mode='tensor')
    assert expected.dtype == inside
    with torch.autocast('cpu', dtype=student,
                        enabled=student != torch.float32):
        output, _ = teacher(Batch(images))
        beside, _ = other(Batch(images))
    assert output.logits[0].dtype == (
        student if precision is None else torch.float32)
    assert torch.equal(output.logits[0].float(), expected.float())
    assert beside.logits[0].dtype == student


def test_a_precision_that_there_is_not(tmp_path):
    teachers = toy_teachers(tmp_path)
    teachers[1]['precision'] = 'half'
    with pytest.raises(ValueError, match="teacher 't1': precision must be one "
                       r"of \['float32', 'bfloat16', 'float16'\].*'half'"):
        MODELS.build(distiller(teachers))


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
@pytest.mark.parametrize('kwargs, used', [
    (dict(), True), (dict(feature_loss=None), False)])
def test_a_feature_that_is_not_finite(tmp_path, value, kwargs, used):
    """Features are checked also if logits are finite, as a classifier may not
    use all channels."""
    model = MODELS.build(distiller(toy_teachers(tmp_path), **kwargs)).train()
    images, _ = World().batch(4)
    teachers_of(model)(Batch(images))
    bad = list(teachers_of(model))[1].model
    bad.backbone.register_forward_hook(
        lambda _, __, out: (out[0].index_fill(
            1, torch.tensor([2]), float(value)), ), prepend=True)
    bad.neck.register_forward_pre_hook(
        lambda _, args: (tuple(x.nan_to_num(0, 0, 0) for x in args[0]), ))
    outputs = teachers_of(model)(Batch(images))
    assert outputs[1].logits[0].isfinite().all()
    if used:
        with pytest.raises(FloatingPointError, match=r"\['t1'\] gave NaN or "
                           'infinite logits or features'):
            teachers_of(model).check_finite()
    else:
        teachers_of(model).check_finite()


def test_an_untrained_teacher_has_all_its_values(monkeypatch):
    """Parameters are uninitialised memory until init_weights is called."""
    @MODELS.register_module(force=True)
    class Unset(ToyBackbone):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.gain = torch.nn.Parameter(torch.full((1, ), torch.nan))

        def init_weights(self):
            super().init_weights()
            torch.nn.init.ones_(self.gain)

        def forward(self, x):
            return tuple(f * self.gain for f in super().forward(x))

    config = classifier(8, hidden=6)
    config['backbone']['type'] = 'mmkd_rl.Unset'
    model = MODELS.build(distiller(
        [dict(name='a', config=config, checkpoint='untrained')]))
    teacher, = model.distillation.teachers
    assert teacher.model.backbone.gain == 1
