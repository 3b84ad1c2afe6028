"""The records and the registry's messages."""

import pytest
import torch

from mmkd_rl.records import ModelOutput, ModelSpec, TeacherWeights
from mmkd_rl.registry import MODELS, WEIGHTINGS, build
from tests.toy import context


def test_embedding_is_the_mean_over_space():
    feature = torch.rand(2, 3, 4, 5)
    output = ModelOutput(torch.rand(2, 7), feature)
    torch.testing.assert_close(output.embedding, feature.mean((2, 3)))
    assert ModelOutput(torch.rand(2, 7),
                       feature[..., 0, 0]).embedding.shape == (2, 3)


def test_detached_records_share_numbers_and_lose_the_graph():
    logits = torch.rand(2, 3, requires_grad=True)
    for record in (ModelOutput(logits * 2, logits * 3),
                   TeacherWeights(logits * 2, logits * 3)):
        cut = record.detach()
        for name in vars(cut):
            a, b = getattr(record, name), getattr(cut, name)
            assert torch.equal(a, b)
            assert a.requires_grad and not b.requires_grad


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        ModelSpec('a', 3, (4, )).name = 'b'


def test_channels():
    assert ModelSpec('a', 3, (4, 2, 2)).channels == 4


@pytest.mark.parametrize('registry, cfg, error, message', [
    (MODELS, 'KDLoss', TypeError, 'key must be a dict with a "type"'),
    (MODELS, dict(temperature=1), TypeError, 'a dict with a "type"'),
    (MODELS, dict(type='KdLoss'), ValueError,
     "key.type='KdLoss' is not a registered model.*'KDLoss'"),
    (MODELS, dict(type='KDLoss', t=1), TypeError, "key: .*'t'"),
])
def test_build_complains_in_the_users_words(registry, cfg, error, message):
    with pytest.raises(error, match=message):
        build(registry, cfg, 'key')


def test_build_takes_classes_and_names_in_any_scope():
    """Whatever the default scope of the user's config is."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmdet'):
        made = build(WEIGHTINGS, dict(type='AverageWeighting'), 'key',
                     context=context(2))
    again = build(WEIGHTINGS, dict(type=type(made)), 'key',
                  context=context(2))
    assert type(again) is type(made)


def test_build_leaves_the_config_alone():
    cfg = dict(type='KDLoss', temperature=2.)
    build(MODELS, cfg, 'key')
    assert cfg == dict(type='KDLoss', temperature=2.)
