"""A config that is broken in any way ends in one message, or in a run that
works; never in a traceback."""

import copy
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from mmkd_rl.registry import MODELS
from mmkd_rl.utils.cli import EXIT_BAD_INPUT, clear_errors
from tests.toy import CLASSES, World, distiller, samples, toy_teachers

#: How many broken configs are tried.
COUNT = 500
WEIGHTINGS = [
    dict(type='AverageWeighting'), dict(type='EBKD'),
    dict(type='CAMKD', feature='teacher', detach_feature=True, scale='unit'),
    dict(type='AEKD', scale='unit'), dict(type='AMTMLKD'),
    dict(type='MTKDRL', reward=dict(type='AgreementReward', feature='own'),
         updater=dict(type='PolicyGradient', optimizer=dict(
             type='Adam', lr=.01)), agent=dict(standardize=True)),
    dict(type='MMKD')]
TERMS = [
    dict(type='KDLoss', temperature=2., loss_weight=1.),
    dict(type='DKDLoss', alpha=1., beta=8.), dict(type='DISTLoss'),
    dict(type='FitNetLoss', loss_weight='auto', ratio=1., standardize=True),
    dict(type='FitNetLoss', loss_weight=5., until=.5, decay='linear')]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=4),
    st.sampled_from([1e9, -1e-9, math.nan, math.inf, 10**12, [], {}, [1, 2],
                     (), 'auto', dict(type='KDLoss'), dict(type='Nothing'),
                     dict(type=3), [None], b'x', object(), 'untrained',
                     'head', 'backbone', {1: 2}, [[0]], {'a': {'b': 1}}]),
    st.floats(-10, 10))


@pytest.fixture(autouse=True)
def progress():
    """What a runner writes: how far the training is."""
    hub = MessageHub.get_current_instance()
    for name, value in (('iter', 0), ('max_iters', 10), ('epoch', 0),
                        ('max_epochs', 2)):
        hub.update_info(name, value)


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    return toy_teachers(tmp_path_factory.mktemp('teachers'))


def valid(teachers, weighting, terms):
    first, second = copy.deepcopy(teachers)
    first.update(normalization=dict(mean=[0., 0., 0.], std=[1., 1., 1.]),
                 taps=dict(feature='backbone', logits='head'),
                 input_size=4, precision='float32', executor='eager')
    second.update(class_map=list(range(CLASSES)), input_scale=1.)
    return distiller(
        [first, second], weighting=copy.deepcopy(weighting),
        losses=copy.deepcopy(terms), projector=dict(act=False, norm=True),
        task=dict(type='ClassificationTask'),
        taps=dict(feature=dict(path='backbone', source='output', call=0),
                  logits='head'), probe_size=4)


def places(value, path=()):
    """Paths of all keys and elements below a config, those of the student's
    own model, which is MMPretrain's, left out."""
    items = value.items() if isinstance(value, dict) else \
        enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if (*path, key) == ('student', ) or key == 'config':
            continue
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def breaks(draw):
    """What is done to a config: which place, as a share, and how."""
    return (draw(st.floats(0, .999)),
            draw(st.sampled_from(['value', 'delete', 'typo', 'add', 'list',
                                  'move'])), draw(VALUES))


def broken(config, changes):
    for share, how, raw in changes:
        value = copy.deepcopy(raw)
        found = list(places(config))
        *way, last = found[int(share * len(found))]
        owner = config
        for key in way:
            owner = owner[key]
        if how == 'delete':
            del owner[last]
        elif how == 'typo' and isinstance(last, str):
            owner[last[:-1] + 'x'] = owner.pop(last)
        elif how == 'add' and isinstance(owner, dict):
            owner['surplus'] = value
        elif how == 'list':
            owner[last] = [owner[last]]
        elif how == 'move' and isinstance(last, str):
            config[last] = owner.pop(last)
        else:
            owner[last] = value
    return config


def trial(config):
    """Exit code of building a model and computing a step; 0: it works."""
    world = World()
    images, labels = world.batch(4)
    try:
        with clear_errors():
            model = MODELS.build(ConfigDict(config))
            losses = model(images, samples(labels), mode='loss')
            values = {n: v for n, v in losses.items() if 'loss' in n}
            sum(v.sum() for v in values.values()).backward()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize('weighting', WEIGHTINGS, ids=lambda w: w['type'])
def test_the_configs_are_valid(weighting, teachers):
    for term in TERMS:
        assert trial(valid(teachers, weighting, [TERMS[0], TERMS[3], term])
                     ) == 0


@settings(max_examples=COUNT, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
@given(weighting=st.sampled_from(WEIGHTINGS),
       terms=st.lists(st.sampled_from(TERMS), min_size=2, max_size=3),
       changes=st.lists(breaks(), min_size=1, max_size=3))
def test_a_broken_config(teachers, weighting, terms, changes):
    torch.manual_seed(0)
    config = broken(valid(teachers, weighting, terms), changes)
    assert trial(config) in (0, EXIT_BAD_INPUT)
