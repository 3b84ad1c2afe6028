"""Features of any kind of network: valid points, and which parts are run."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmkd_rl.records import Batch, Output, OutputSpec
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import ClassificationTask, FeatureTask
from mmkd_rl.teachers.loading import build_network
from tests.toy import classifier, distiller


def sample(shape=None, **metainfo):
    if shape is not None:
        metainfo['img_shape'] = shape
    return BaseDataElement(metainfo=metainfo)


def truth(*shapes, size=(4, 6)):
    return FeatureTask().truth(Batch(
        torch.rand(len(shapes), 3, *size),
        [sample(s, batch_input_shape=size) for s in shapes]))


def test_padding_is_not_valid():
    found = truth((4, 6), (3, 2), (4, 1, 3), None)
    assert found.targets is None
    assert found.count.tolist() == [24, 6, 4, 24]
    for i, (height, width) in enumerate([(4, 6), (3, 2), (4, 1), (4, 6)]):
        for h in range(4):
            for w in range(6):
                assert found.valid[i, h, w] == (h < height and w < width)


def test_nothing_is_masked_where_nothing_is_padded():
    for found in (truth((4, 6), (4, 6)), truth(None, None),
                  truth((9, 9), (4, 6)),  # img_shape before a crop
                  FeatureTask().truth(Batch(torch.rand(2, 3, 4, 6)))):
        assert found.valid is None and found.count.tolist() == [24, 24]


def test_a_sample_that_does_not_know_the_padded_size_is_not_believed():
    """The image may have been resized since its file was read; samples of
    MMSegmentation have the padded size under another name."""
    images = torch.rand(1, 3, 4, 6)
    for padded in (dict(), dict(pad_shape=(3, 3, 3)),
                   dict(batch_input_shape=(8, 8))):
        found = FeatureTask().truth(Batch(images, [sample((2, 2), **padded)]))
        assert found.valid is None
    found = FeatureTask().truth(
        Batch(images, [sample((2, 2), pad_shape=(4, 6))]))
    assert found.count.tolist() == [4]


def test_an_image_that_is_larger_than_the_batch_is_cut():
    found = truth((9, 3), (4, 6))
    assert found.count.tolist() == [12, 24]
    assert found.valid[0].sum() == 12


def test_a_summary_for_the_agent_leaves_padding_out():
    """The summary does not depend on the values in the padding."""
    task, found = FeatureTask(), truth((4, 3), (4, 6))
    fine, coarse = torch.rand(2, 3, 4, 6), torch.rand(2, 2, 2, 2)
    sums = []
    for noise in (0., 9.):
        a, b = fine.clone(), coarse.clone()
        a[0, :, :, 3:] += noise
        b[0, :, :, 1:] += noise
        sums.append(task.feature_summary(Output((a, b)), found))
    torch.testing.assert_close(*sums)
    torch.testing.assert_close(sums[0][0], torch.cat([
        fine[0, :, :, :3].mean((1, 2)), coarse[0, :, :, :1].mean((1, 2))]))
    torch.testing.assert_close(sums[0][1], torch.cat([
        fine[1].mean((1, 2)), coarse[1].mean((1, 2))]))
    sizes = task.summary_sizes(OutputSpec.of('a', Output((fine, coarse))))
    assert sizes['feature'] == sums[0].shape[1] == 5


class Net(nn.Module):
    """Network with two levels, and a head that must not be run."""

    def __init__(self, neck=True):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        if neck:
            self.neck = Levels()

    def extract_feat(self, images):
        x = self.backbone(images)
        return self.neck(x) if hasattr(self, 'neck') else x

    def forward(self, images, mode='tensor'):
        raise AssertionError('the head was run')


class Levels(nn.Module):

    def forward(self, x):
        return x, x[..., ::2, ::2]


@pytest.mark.parametrize('neck', [True, False])
def test_levels_of_the_neck_or_of_the_backbone(neck):
    task, net = FeatureTask(), Net(neck)
    taps = task.taps(net, None, 'student')
    images = torch.rand(2, 3, 4, 6)
    output = task.infer(net, taps, Batch(images))
    levels = net.extract_feat(images) if neck else (net.backbone(images), )
    assert len(output.features) == len(levels) and not output.logits
    assert all(map(torch.equal, output.features, levels))


def test_a_network_without_features_to_find():
    with pytest.raises(ValueError, match='student: ReLU has neither a neck '
                       r"nor a backbone.*student.taps=dict\(feature='...'\)"):
        FeatureTask().taps(nn.ReLU(), None, 'student')


def test_a_network_that_has_no_extract_feat():
    class Plain(nn.Sequential):

        def forward(self, x, mode):
            assert mode == 'tensor'
            return super().forward(x)

    net, task = Plain(nn.Conv2d(3, 4, 1), nn.ReLU()), FeatureTask()
    images = torch.rand(2, 3, 4, 6)
    output = task.infer(net, task.taps(net, dict(feature='0'), 'student'),
                        Batch(images))
    assert torch.equal(output.features[0], net[0](images))


def test_a_network_whose_extract_feat_is_of_no_use():
    """``extract_feat`` of TimmClassifier does not run the layers behind the
    pooling, and TorchVisionClassifier has no ``extract_feat``."""
    task, images = FeatureTask(), torch.rand(2, 3, 32, 32)
    for kind, path in (('mmkd_rl.TimmClassifier', 'model.global_pool'),
                       ('mmkd_rl.TorchVisionClassifier', 'model.layer4')):
        torch.manual_seed(0)
        net = MODELS.build(dict(
            type=kind, model_name='resnet18', num_classes=5)).eval()
        taps = task.taps(net, dict(feature=path), 'student')
        feature, = task.infer(net, taps, Batch(images)).features
        assert feature.shape[:2] == (2, 512)
        if feature.ndim == 4:
            feature = feature.mean((2, 3))
        torch.testing.assert_close(net.model.fc(feature), net(images))


def test_class_maps_have_no_meaning():
    """Class maps are refused when the model is built."""
    teacher = dict(name='a', config=classifier(8), checkpoint='untrained',
                   class_map=[0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="teacher 'a': class_map has no effect"
                       '.* no class scores'):
        MODELS.build(distiller([teacher], task=dict(type='FeatureTask')))


@pytest.mark.parametrize('backbone, neck, head', [
    (dict(type='MlpMixer', arch='s', img_size=32, patch_size=16),
     dict(type='GlobalAveragePooling', dim=1),
     dict(type='LinearClsHead', in_channels=512)),
    (dict(type='DistilledVisionTransformer', arch='deit-tiny', img_size=32,
          patch_size=16), None,
     dict(type='DeiTClsHead', in_channels=192)),
    (dict(type='ResNet', depth=18), dict(type='GlobalAveragePooling'),
     dict(type='LinearClsHead', in_channels=512))])
def test_a_classifier_gives_the_feature_of_its_own_task(backbone, neck, head):
    """Tokens, a token in the head, and maps before the pooling."""
    model = build_network(dict(
        type='ImageClassifier', backbone=backbone, neck=neck,
        head=dict(head, num_classes=3)), 'mmpretrain', 'model').eval()
    batch = Batch(torch.rand(2, 3, 32, 32))
    found = [task.infer(model, task.taps(model, None, 'model'), batch)
             for task in (FeatureTask('last'), ClassificationTask())]
    (feature, ), (expected, ) = (output.features for output in found)
    torch.testing.assert_close(feature, expected)
