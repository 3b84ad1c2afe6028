"""Outputs of classifiers, and formats of their targets."""

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmkd_rl.records import Batch
from mmkd_rl.registry import MODELS
from mmkd_rl.tasks import ClassificationTask
from tests.toy import World, classifier, distiller, samples, toy_teachers


def build(cfg):
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        return registry.build(cfg)


def attributes(output):
    return output.features, output.logits


def test_default_taps_of_an_image_classifier():
    task, model = ClassificationTask(), build(classifier()).eval()
    images = World().batch(3)[0]
    (feature, ), (logits, ) = attributes(
        task.infer(model, task.taps(model, None, 'student'), Batch(images)))
    torch.testing.assert_close(logits, model(images))
    torch.testing.assert_close(feature, model.backbone(images)[0])


def test_tokens_of_a_mixer_are_averaged():
    """MLP-Mixer's neck averages the backbone's tokens."""
    model = build(dict(
        type='ImageClassifier',
        backbone=dict(type='MlpMixer', arch='s', img_size=32, patch_size=16),
        neck=dict(type='GlobalAveragePooling', dim=1),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=512)))
    model.eval()
    task, images = ClassificationTask(), torch.rand(2, 3, 32, 32)
    taps = task.taps(model, None, 'student')
    (feature, ), (logits, ) = attributes(
        task.infer(model, taps, Batch(images)))
    torch.testing.assert_close(feature, model.backbone(images)[0].mean(2))
    torch.testing.assert_close(
        task.classify(model, taps, feature, 'student'), logits)


def test_taps_in_loss_mode_are_those_of_the_same_pass():
    """Taps in loss mode give the outputs of the same forward pass, so that
    nothing is computed twice."""
    task, model = ClassificationTask(), build(classifier())
    images, labels = World().batch(3)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    with task.taps(model, None, 'student').recording(model) as recording:
        losses = model(images, samples(labels), mode='loss')
    assert len(calls) == 1
    torch.testing.assert_close(
        losses['loss'],
        nn.functional.cross_entropy(recording.output().logits[0], labels))


@pytest.mark.parametrize('cfg, error, message', [
    (dict(feature='nope'), ValueError, "student.taps.feature.*'nope'"),
    (dict(logit='head'), ValueError, r"unknown \['logit'\].*'logits'"),
    (dict(feature=[['backbone']]), TypeError, 'student.taps.feature'),
    (dict(feature=3), TypeError, 'student.taps.feature'),
    (dict(feature=['backbone', 'nope']), ValueError,
     r"student.taps.feature\[1\].*'nope'"),
])
def test_bad_taps(cfg, error, message):
    with pytest.raises(error, match=message):
        ClassificationTask().taps(build(classifier()), cfg, 'student')


def test_networks_without_the_usual_parts():
    task = ClassificationTask()
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match=r"taps=dict\(feature='...'\)"):
        task.taps(net, None, 'student')
    with pytest.raises(ValueError, match=r"taps=dict\(logits='...'\)"):
        task.taps(net, dict(feature='0'), 'student')


def targets(data_samples):
    """Targets of a batch of data samples; checks that each image counts 1."""
    truth = ClassificationTask().truth(
        Batch(torch.zeros(len(data_samples), 3, 4, 4), data_samples))
    assert truth.valid is None
    assert torch.equal(truth.count, torch.ones(len(data_samples)))
    return truth.targets


def test_targets():
    labels = torch.tensor([3, 0, 4])
    assert torch.equal(targets(samples(labels)), labels)
    soft = torch.tensor([[.2, .8], [1., 0.]])
    assert torch.equal(
        targets([DataSample().set_gt_score(s) for s in soft]), soft)


def test_several_labels_an_image_are_refused():
    several = [DataSample().set_gt_label([0, 2]), DataSample().set_gt_label(1)]
    with pytest.raises(ValueError, match='3 labels for 2 images'):
        targets(several)
    with pytest.raises(ValueError, match='one label'):  # 2 = 2 in all
        targets([DataSample().set_gt_label([0, 2]),
                 DataSample().set_gt_label([])])


@pytest.mark.parametrize('weighting', ['AverageWeighting', 'MTKDRL'])
@pytest.mark.parametrize('kind', ['Mixup', 'CutMix'])
def test_students_batch_augmentations_go_on_working(tmp_path, weighting,
                                                    kind):
    torch.manual_seed(0)
    np.random.seed(3)  # noqa: NPY002  (a cut that is not empty)
    student = classifier(
        train_cfg=dict(augments=dict(type=kind, alpha=1.)),
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor', num_classes=5))
    model = MODELS.build(
        distiller(
            toy_teachers(tmp_path),
            student=student,
            weighting=dict(type=weighting))).train()
    images, labels = World().batch(8)
    data = model.data_preprocessor(
        dict(inputs=images, data_samples=samples(labels)), training=True)
    assert 'gt_score' in data['data_samples'][0]
    mixed = targets(data['data_samples'])
    assert mixed.shape == (8, 5)
    torch.testing.assert_close(mixed.sum(1), torch.ones(8))
    assert (mixed.max(1).values < 1).any()
    losses = model(**data, mode='loss')
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_scopes():
    task = ClassificationTask()
    for ours in (None, 'mmkd_rl', 'mmengine'):
        assert task.scope_for(ours) == 'mmpretrain'
    assert task.scope_for('mmdet') == 'mmdet'
