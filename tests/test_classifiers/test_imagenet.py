"""Networks of Tables 2 and 3 have the sizes in the paper, and vision
transformers can be distilled like other networks."""

import copy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import ClassificationTask
from mmkd_rl.teachers.loading import build_network, load_model_config
from tests.test_engine.test_resume import same
from tests.toy import (
    CLASSES,
    World,
    distiller,
    samples,
    toy_runner,
    toy_teachers,
)

CONFIGS = {p.stem.partition('_')[0]: p for p in (
    Path(__file__).parents[2] / 'configs' / 'imagenet').rglob('*.py')}
SIZES = {  # millions of parameters, billions of multiply-adds
    'resnet18': (11.7, 1.8),
    'resnet34': (21.8, 3.7),
    'resnet50': (25.6, 4.1),
    'resnet101': (44.5, 7.8),
    'wide-resnet50-2': (68.9, 11.4),
    'resnext50-32x4d': (25.0, 4.2),
    'deit-tiny': (5.7, 1.3),
    'deit-small': (22.1, 4.6),
    'deit-base': (86.6, 17.5),
    'cait-xxs24': (12.0, 2.5),
    'cait-s24': (46.9, 9.4),
}
IMAGE = dict(img_size=4, patch_size=2)
ARCH = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16)


def vit(kind='VisionTransformer', head='VisionTransformerClsHead'):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type=f'mmpretrain.{kind}', arch=ARCH, **IMAGE),
        neck=None,
        head=dict(
            type=f'mmpretrain.{head}',
            num_classes=CLASSES,
            in_channels=8,
            init_cfg=None,
            loss=dict(
                type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1)))


def cait():
    return dict(
        type='mmkd_rl.TimmClassifier',
        model_name='cait_xxs24_224',
        embed_dim=8,
        depth=2,
        num_heads=2,
        depth_token_only=1,
        init_values=0.5,
        num_classes=CLASSES,
        **IMAGE)


TRANSFORMERS = {
    'deit': vit(),
    'distilled deit': vit('DistilledVisionTransformer', 'DeiTClsHead'),
    'cait': cait(),
}


def test_every_config_is_tested():
    assert CONFIGS.keys() == SIZES.keys()


@pytest.mark.parametrize('name', SIZES)
def test_size_is_the_printed_one(name):
    config, scope = load_model_config(str(CONFIGS[name]), 'config')
    # Networks that can be built on the meta device are: it is quicker.
    place = 'meta' if name.startswith(('cait', 'deit')) else 'cpu'
    with torch.device(place):
        net = build_network(config, scope, 'config')
    net = net.to('meta').requires_grad_(False).eval()
    with FlopCounterMode(display=False) as counter:
        logits = net(torch.empty(1, 3, 224, 224, device='meta'), mode='tensor')
    assert logits.shape == (1, 1000)
    parameters, multiply_adds = SIZES[name]
    got = sum(p.numel() for p in net.parameters()) / 1e6
    assert got == pytest.approx(parameters, rel=0.02)
    # within 2 %; for small networks within the rounding to one decimal
    assert counter.get_total_flops() / 2e9 == pytest.approx(
        multiply_adds, rel=0.02, abs=0.05)


def own_parameters(model):
    """Parameters of the student by name."""
    return [(n, p) for n, p in model.named_parameters()
            if not n.startswith('distillation.')]


def build(folder, student, **kwargs):
    torch.manual_seed(0)
    teachers = toy_teachers(folder, count=1)
    for name, config in TRANSFORMERS.items():
        teacher = MODELS.build(copy.deepcopy(config))
        path = folder / f'{name}.pth'
        torch.save(dict(state_dict=teacher.state_dict()), path)
        teachers.append(
            dict(name=name, config=config, checkpoint=str(path)))
    model = MODELS.build(
        distiller(teachers, student=copy.deepcopy(student), **kwargs))
    return model.train()


@pytest.mark.parametrize('name', ['deit', 'cait'])
def test_transformers_are_students_and_teachers(tmp_path, name):
    """One step with teachers whose features are a vector and a map: the
    default taps find class tokens, and every weight of the student changes."""
    model = build(
        tmp_path, TRANSFORMERS[name],
        weighting=dict(type='MTKDRL')).double()  # some steps are tiny
    images, labels = World().batch(6)
    before = {n: p.clone() for n, p in own_parameters(model)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = model(images.double(), samples(labels), mode='loss')
    assert set(losses) == {'loss_student', 'loss_logit', 'loss_feature'}
    sum(losses.values()).backward()
    optimizer.step()
    # the bias of keys has no effect on the softmax
    still = [
        n for n, p in own_parameters(model)
        if torch.equal(p, before[n]) and not n.endswith('attn.k.bias')
    ]
    assert not still
    sizes = [
        (p.layers[0].in_features, p.layers[0].out_features)
        for p, in model.distillation.terms[1].projectors
    ]
    assert sizes == [(8, CLASSES), (8, 8), (8, 8), (8, 8)]


@pytest.mark.parametrize('name', ['deit', 'cait', "MMPretrain's cait"])
def test_a_distillation_of_a_transformer_loads_again(tmp_path, name):
    """MMPretrain's TimmClassifier adds ``model.`` to all names that it loads,
    including those of the distillation."""
    student = dict(TRANSFORMERS[name.split()[-1]])
    if 'MMPretrain' in name:
        student['type'] = 'mmpretrain.TimmClassifier'
    model = build(tmp_path, student)
    state = {n: torch.zeros_like(t) for n, t in model.state_dict().items()}
    twin = copy.deepcopy(model)
    for other in (model, twin):
        other.load_state_dict(state, strict=True)
        assert not any(p.any() for p in other.parameters())
    assert not any('model' in n.split('.')[:-1] for n in state)
    alone = MODELS.build(copy.deepcopy(student)).state_dict().keys()
    assert alone < state.keys()
    assert all(n.startswith('distillation.') for n in state.keys() - alone)


@pytest.mark.parametrize('kind, hooks', [
    ('mmpretrain', []),
    ('mmkd_rl', []),
    ('mmkd_rl', [dict(type='EMAHook', momentum=.1)]),
])
def test_a_run_of_a_timm_student_resumes_exactly(tmp_path, kind, hooks):
    """Weights, projectors and the optimiser's state are the same; averaged
    weights with our class only, see its docstring."""
    student = dict(cait(), type=f'{kind}.TimmClassifier')

    def run(folder, epochs, **kwargs):
        runner = toy_runner(
            tmp_path / folder,
            distiller(toy_teachers(tmp_path), student=copy.deepcopy(student)),
            epochs=epochs, size=16, jitter=.1, randomness=dict(seed=3),
            hooks=[dict(type='RandomStateHook'), *hooks], **kwargs)
        runner.train()
        return torch.load(tmp_path / folder / f'epoch_{epochs}.pth',
                          weights_only=False)

    first = run('b', 1)
    whole, resumed = run('a', 2), run('b', 2, resume=True)
    assert resumed['meta']['iter'] == 4
    for key in ('state_dict', 'optimizer', *(['ema_state_dict'] * len(hooks))):
        same(whole[key], resumed[key], key)
    moved = {n.split('.')[0] for n, t in whole['state_dict'].items()
             if not torch.equal(t, first['state_dict'][n])}
    assert {'blocks', 'head', 'distillation'} <= moved
    assert not any(n.startswith('model.') for n in whole['state_dict'])


def test_the_feature_of_a_distilled_deit_is_its_class_token():
    model = MODELS.build(
        copy.deepcopy(TRANSFORMERS['distilled deit'])).eval()
    images = torch.rand(2, 3, 4, 4)
    task = ClassificationTask()
    feature, = task.infer(
        model, task.taps(model, None, 'key'), Batch(images)).features
    token, _ = model.backbone(images)[-1]
    torch.testing.assert_close(feature, token)


def test_timms_checkpoints_load_as_they_are():
    import timm
    config = cait()
    model = MODELS.build(dict(config))
    for key in ('type', 'model_name'):
        config.pop(key)
    original = timm.create_model('cait_xxs24_224', **config)
    model.load_state_dict(original.state_dict(), strict=True)
    assert model.state_dict().keys() == original.state_dict().keys()
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(model.eval()(images), original.eval()(images))


def test_defaults_without_a_prefix_are_mmpretrains():
    """Defaults that MMPretrain fills in have no scope."""
    from mmengine.registry import init_default_scope
    init_default_scope('mmkd_rl')
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmkd_rl.CifarResNet', depth=8),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=3,
                in_channels=64)))
    assert type(model.data_preprocessor).__name__ == 'ClsDataPreprocessor'
    assert type(model.head.loss_module).__name__ == 'CrossEntropyLoss'
