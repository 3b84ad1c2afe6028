"""A distilled student has the same learning rates as the plain student."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmkd_rl.registry import MODELS
from tests.toy import classifier, distiller, toy_teachers

VIT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer', img_size=8, patch_size=4,
        arch=dict(embed_dims=8, num_layers=3, num_heads=2,
                  feedforward_channels=16)),
    head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5,
              in_channels=8))
FCN = dict(
    type='FCNHead', in_channels=8, in_index=-1, channels=4, num_convs=1,
    num_classes=3, norm_cfg=dict(type='BN'),
    loss_decode=dict(type='CrossEntropyLoss'))
BEIT = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor'),
    backbone=dict(
        type='BEiT', img_size=(8, 8), patch_size=4, embed_dims=8,
        num_layers=3, num_heads=2, out_indices=(2, ), qv_bias=True),
    decode_head=FCN, train_cfg=dict(), test_cfg=dict(mode='whole'))


def rates(model, cfg):
    """Learning rate and weight decay of each of the student's weights."""
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='AdamW', lr=1., weight_decay=.5), **cfg))
    names = {id(p): n for n, p in model.named_parameters()}
    found = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.param_groups for p in group['params']
        if id(p) in names  # MMEngine adds a number of its own
    }
    assert found.keys() == {
        n for n, p in model.named_parameters() if p.requires_grad}
    return {n: r for n, r in found.items()
            if not n.startswith('distillation.')}, {
                n: r for n, r in found.items()
                if n.startswith('distillation.')}


def both(student, scope, folder=None, **kwargs):
    """The student alone, and distilled."""
    init_default_scope(scope)
    with MODELS.switch_scope_and_registry(scope) as registry:
        alone = registry.build(dict(student))
    return alone, MODELS.build(distiller(
        [dict(name='a', config=student, checkpoint='untrained')],
        student=student, probe_size=8, **kwargs))


def test_layer_wise_rates_of_mmpretrain():
    alone, distilled = both(VIT, 'mmpretrain', feature_loss=dict(
        type='FitNetLoss'))
    cfg = dict(constructor='LearningRateDecayOptimWrapperConstructor',
               paramwise_cfg=dict(layer_decay_rate=.5))
    expected, _ = rates(alone, cfg)
    assert len({lr for lr, _ in expected.values()}) > 3
    found, projectors = rates(distilled, cfg)
    assert found == expected
    # The learning rate of layers behind the backbone.
    assert {lr for lr, _ in projectors.values()} == {
        expected['head.layers.head.weight'][0]}


def test_layer_wise_rates_of_mmsegmentation():
    pytest.importorskip('mmseg')
    alone, distilled = both(BEIT, 'mmseg', task=dict(type='FeatureTask'))
    cfg = dict(constructor='mmseg.LayerDecayOptimizerConstructor',
               paramwise_cfg=dict(num_layers=3, layer_decay_rate=.5))
    expected, _ = rates(alone, cfg)
    assert len({lr for lr, _ in expected.values()}) > 3
    found, projectors = rates(distilled, cfg)
    assert found == expected and projectors


@pytest.mark.parametrize('keys', [
    dict(backbone=dict(lr_mult=.1)), dict(head=dict(lr_mult=3.)),
    {'backbone.conv': dict(lr_mult=0., decay_mult=0.)},
    dict(norm=dict(decay_mult=0.), neck=dict(lr_mult=2.))])
def test_custom_keys(tmp_path, keys):
    """Custom keys match any part of a name, but no name of the
    distillation."""
    student = classifier(8, hidden=6)
    alone = MODELS.build(student)
    distilled = MODELS.build(distiller(
        toy_teachers(tmp_path), weighting=dict(type='AMTMLKD')))
    cfg = dict(paramwise_cfg=dict(custom_keys=keys))
    expected, _ = rates(alone, cfg)
    found, own = rates(distilled, cfg)
    assert found == expected
    assert set(own.values()) == {(1., .5)}


def test_a_checkpoint_of_the_optimiser_fits_the_order_of_weights(tmp_path):
    """The student's weights come first, in the student's order."""
    model = MODELS.build(distiller(toy_teachers(tmp_path)))
    names = [n for n, _ in model.named_parameters()]
    own = [n for n, _ in MODELS.build(
        classifier(8, hidden=6)).named_parameters()]
    assert names[:len(own)] == own
    assert all(isinstance(p, torch.nn.Parameter) for p in model.parameters())
