"""Teachers given by the name of a package's network: they get images as in
their training, and load their package's checkpoints."""

import pytest
import timm
import torch
import torchvision
from mmengine.config import Config

from mmkd_rl import distill
from mmkd_rl.export.student import plain_copy
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers.sources import expand
from tests.toy import classifier

RESNET18 = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
MEAN, STD = [10., 20., 30.], [50., 60., 70.]


def tiny(num_classes=5):
    """Build a plain module; teachers name this function by its import path."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, num_classes))


def built(teacher, classes=5, size=64):
    student = classifier(8, classes=classes)
    student['backbone'] = dict(type='mmkd_rl.CifarResNet', depth=8)
    student['head']['in_channels'] = 64
    student['data_preprocessor'] = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=MEAN, std=STD,
        to_rgb=True)
    return MODELS.build(dict(
        type='mmkd_rl.MultiTeacherDistiller', student=student,
        teachers=[dict(dict(name='a'), **teacher)], probe_size=size))


@pytest.mark.parametrize('config, network, mean, std', [
    ('timm::test_resnet,num_classes=5',
     lambda: timm.create_model('test_resnet', num_classes=5),
     (.5, .5, .5), (.5, .5, .5)),
    ('torchvision::squeezenet1_1,num_classes=5',
     lambda: torchvision.models.squeezenet1_1(num_classes=5),
     (.485, .456, .406), (.229, .224, .225))])
def test_it_sees_what_it_was_trained_on(tmp_path, config, network, mean, std):
    """The logits equal those of the package for the same pixels."""
    net = network().eval()
    file = tmp_path / 'own.pth'
    torch.save(net.state_dict(), file)
    options = {} if 'timm' in config else dict(
        taps=dict(feature='model.features'))
    model = built(dict(config=config, checkpoint=str(file), **options))
    pixels = torch.rand(2, 3, 64, 64)  # RGB
    column = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    from mmkd_rl.records import Batch
    given = (255 * pixels - column[0]) / column[1]
    output, = model.distillation.teachers(Batch(given))
    with torch.no_grad():
        expected = net((pixels - torch.tensor(mean).view(3, 1, 1))
                       / torch.tensor(std).view(3, 1, 1))
    torch.testing.assert_close(output.logits[0], expected, rtol=1e-3,
                               atol=1e-4)
    assert not hasattr(plain_copy(model), 'distillation')


def test_a_module_of_ones_own(tmp_path):
    net = tiny()
    file = tmp_path / 'own.pth'
    torch.save(net.state_dict(), file)
    model = built(dict(config=f'python::{__name__}.tiny',
                       checkpoint=str(file)))
    teacher, = model.distillation.teachers
    for a, b in zip(teacher.model.model.parameters(), net.parameters()):
        assert torch.equal(a, b)
    from mmkd_rl.records import Batch
    output, = model.distillation.teachers(Batch(torch.rand(2, 3, 8, 8)))
    assert output.features[0].shape == (2, 4)


def test_the_class_or_function_itself(tmp_path):
    """By its name in the run's config, which is text."""
    net = tiny()
    torch.save(net.state_dict(), tmp_path / 'own.pth')
    teacher = dict(name='a', config=tiny, checkpoint=str(tmp_path / 'own.pth'))
    own, = built(teacher).distillation.teachers
    assert torch.equal(own.model.model[0].weight, net[0].weight)
    cfg = distill(RESNET18, 'aver', [teacher])
    assert cfg.model.teachers[0].config == f'python::{__name__}.tiny'
    assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model


@pytest.mark.parametrize('network', [tiny(), lambda: tiny()])
def test_what_a_later_run_could_not_import(network):
    for build in (lambda t: built(t),
                  lambda t: distill(RESNET18, 'aver', [t])):
        with pytest.raises(ValueError, match="'a'.*cannot import by its name"
                           '.*top level of a module'):
            build(dict(name='a', config=network, checkpoint='untrained'))


@pytest.fixture(params=['ViT', 'ResNet'])
def folder(request, tmp_path):
    """Folder with a model and its processor, saved by transformers."""
    transformers = pytest.importorskip('transformers')
    config = dict(
        ViT=lambda: transformers.ViTConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, image_size=32, patch_size=8, num_labels=5),
        ResNet=lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1],
            num_labels=5))[request.param]()
    net = transformers.AutoModelForImageClassification.from_config(config)
    net.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(
        image_mean=[.5, .4, .3], image_std=[.2, .3, .4],
        size=dict(height=32, width=32)).save_pretrained(tmp_path)
    return tmp_path, net.eval()


def test_a_model_of_transformers(folder):
    """The logits are the same with the model's own file; a ViT gets images of
    its own size."""
    from transformers import AutoImageProcessor
    path, net = folder
    teacher = dict(config=f'transformers::{path}',
                   checkpoint=str(path / 'model.safetensors'))
    side = 64 if hasattr(net.config, 'image_size') else 32
    model = built(teacher, size=side)
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    if side == 64:  # 2 x 2 equal pixels: all kinds of resizing agree
        shown = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
        flat = pixels.float().mean((2, 3), keepdim=True).round()
        pixels = flat.expand(pixels.shape).to(torch.uint8)
        shown = flat.expand(shown.shape)
    else:
        shown = pixels
    column = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    from mmkd_rl.records import Batch
    output, = model.distillation.teachers(
        Batch((shown.float() - column[0]) / column[1]))
    own = AutoImageProcessor.from_pretrained(path)(
        list(pixels), return_tensors='pt')
    with torch.no_grad():
        expected = net(**own).logits
    torch.testing.assert_close(output.logits[0], expected, rtol=1e-3,
                               atol=1e-4)
    assert output.features[0].shape == (2, 8)


def test_a_network_for_one_size_gets_it():
    teacher = expand(dict(config='timm::vit_tiny_patch16_224'), 'teacher')
    assert teacher['input_size'] == (224, 224)
    own = expand(dict(config='timm::vit_tiny_patch16_224', input_size=96),
                 'teacher')
    assert own['input_size'] == 96
    assert 'input_size' not in expand(
        dict(config='torchvision::resnet18'), 'teacher')
    assert expand(dict(config='torchvision::vit_b_16'), 't')['input_size'] == (
        224, 224)


@pytest.mark.parametrize('config', [
    'mmpretrain::resnet/resnet18_8xb32_in1k.py', 'a.py', dict(type='A')])
def test_other_configs_are_left_alone(config):
    teacher = dict(name='a', config=config)
    assert expand(teacher, 'teacher') == teacher


@pytest.mark.parametrize('config, error, message', [
    ('timm::resnet18x', ValueError, "teacher 'a': timm has no model "
     "'resnet18x'; it has .*resnet18"),
    ('torchvision::resnet19', ValueError, 'no classifier.*resnet1'),
    ('transformers::no/such', ValueError, "teacher 'a': (transformers has no "
     "image classifier 'no/such'|.*not installed: pip install 'transformers)"),
    ('timm::resnet18,num', ValueError,
     "'num' is not of the form OPTION=VALUE"),
    ('timm::test_resnet,num_clases=5', TypeError, 'num_clases'),
    ('python::tests.no_such.net', ValueError, "'tests.no_such.net' cannot be "
     'imported'),
    ('python::net', ValueError, "'net' cannot be imported"),
    ('python::os.getcwd', TypeError, 'builds a str, not an nn.Module')])
def test_bad_names(config, error, message):
    with pytest.raises(error, match=message):
        built(dict(config=config, checkpoint='untrained'))
