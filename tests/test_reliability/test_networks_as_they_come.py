"""Networks that give more in training, or other outputs, than a classifier's
plain scores."""

import copy
import pickle
import sys
import types

import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.classifiers import HuggingFaceClassifier
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import load_weights

CLASSES = 10
RESNET = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=8,
                  stem_channels=8),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES,
              in_channels=64))


def untrained(config, **changes):
    return dict(name='t', config=config, checkpoint='untrained', **changes)


def build(student, teacher, size=32):
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='mmkd_rl.MultiTeacherDistiller', student=student,
        teachers=[teacher], weighting=dict(type='AverageWeighting'),
        probe_size=size))
    return model


def losses(model, size=32, count=4):
    torch.manual_seed(1)
    samples = [DataSample().set_gt_label(i) for i in range(count)]
    return model(torch.randn(count, 3, size, size), samples, mode='loss')


@pytest.mark.parametrize('name', ['googlenet', pytest.param(
    'inception_v3', marks=pytest.mark.downstream)])
def test_auxiliary_heads_of_torchvision(name):
    """The main scores are trained and distilled, also in training mode."""
    size = 299 if name == 'inception_v3' else 32
    student = dict(type='mmkd_rl.TorchVisionClassifier', model_name=name,
                   num_classes=CLASSES, init_weights=False)
    model = build(student, untrained(RESNET), size).train()
    values = losses(model, size)
    assert all(v.isfinite() for v in values.values())
    sum(values.values()).backward()
    assert model.model.fc.weight.grad.abs().sum() > 0
    scores = model(torch.randn(2, 3, size, size))
    assert scores.shape == (2, CLASSES)


@pytest.mark.parametrize('name', ['deit_tiny_distilled_patch16_224',
                                  'levit_128s'])
def test_the_class_token_of_a_distilled_transformer_is_the_feature(name):
    teacher = untrained(dict(type='mmkd_rl.TimmClassifier', model_name=name,
                             num_classes=CLASSES), input_size=224)
    model = build(RESNET, teacher)
    tap, = model.distillation.teachers[0]._taps.features
    assert tap.path.startswith('model.head.') or tap.path == 'model.head'


@pytest.mark.parametrize('head', ['ArcFaceClsHead'])
def test_a_margin_is_for_the_students_own_loss_alone(head):
    """A student that equals its teacher has no distance from it."""
    config = copy.deepcopy(RESNET)
    config['head'] = dict(
        type=f'mmpretrain.{head}', num_classes=CLASSES, in_channels=64,
        loss=dict(type='mmpretrain.CrossEntropyLoss'))
    model = build(config, untrained(config))
    model.distillation.teachers[0].model.load_state_dict(
        {n: t for n, t in model.state_dict().items()
         if not n.startswith('distillation')})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert losses(model)['loss_logit'] < 1e-6
    plain = MODELS.build(config)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    torch.testing.assert_close(losses(model)['loss_student'],
                               losses(plain)['loss'])


class SeveralOutputs(nn.Module):
    """A user's network with a dict or a tuple of outputs."""

    def __init__(self, form):
        super().__init__()
        self.layer, self.form = nn.Linear(3, CLASSES), form

    def forward(self, x):
        z = self.layer(x.mean((2, 3)))
        return dict(features=x, logits=z) if self.form == 'dict' else (z, x)


@pytest.mark.parametrize('form', ['dict', 'tuple'])
def test_a_users_network_with_several_outputs(form):
    config = dict(type='mmkd_rl.ModuleClassifier', form=form,
                  module=f'{__name__}.SeveralOutputs')
    assert losses(build(config, untrained(config)))['loss_logit'].isfinite()


def test_a_batch_norm_that_was_never_trained_is_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr('mmkd_rl.teachers.loading.print_log',
                        lambda text, *args, **kwargs: said.append(text))
    network = MODELS.build(RESNET)
    load_weights(network, network.state_dict(), 'a.pth', 'key')
    assert '20 of 20 batch norms' in said[0]
    said.clear()
    network.train()
    network(torch.randn(4, 3, 32, 32))
    load_weights(network, network.state_dict(), 'a.pth', 'key')
    assert not said


def test_a_transformers_model_inside_an_average(monkeypatch):
    """EMAHook nests a copy of the model; MMPretrain's class then saves names
    that it cannot load."""
    found = types.SimpleNamespace(
        from_pretrained=lambda *args, **kwargs: None)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, CLASSES))
    fake = types.ModuleType('transformers')
    fake.AutoConfig = found
    fake.AutoModelForImageClassification = types.SimpleNamespace(
        from_config=lambda *args, **kwargs: network)
    monkeypatch.setitem(sys.modules, 'transformers', fake)
    # Without transformers the real one is behind a message.
    base = HuggingFaceClassifier.__mro__[1]
    monkeypatch.setattr(base, '__init__', getattr(
        base.__init__, '__wrapped__', base.__init__))
    model = MODELS.build(dict(type='mmkd_rl.HuggingFaceClassifier',
                              model_name='x'))
    average = torch.optim.swa_utils.AveragedModel(model)
    average.load_state_dict(average.state_dict())
    assert 'module.1.weight' in average.state_dict()
    assert '1.weight' in model.state_dict()
    model.load_state_dict(model.state_dict())


def test_a_model_with_its_teachers_is_pickled():
    model = build(RESNET, untrained(RESNET)).eval()
    copied = pickle.loads(pickle.dumps(model))
    for name, value in losses(model).items():
        assert torch.equal(value, losses(copied)[name])
