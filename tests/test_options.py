"""Options are checked against the signature of their part: types, ranges,
choices and names. One message has all problems of a config, and the check is
the same for parts that are built by a registry or by a call."""

import inspect
import pickle
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic import Field

from mmkd_rl.flow import KnowledgeFlowBackbone
from mmkd_rl.losses import DistillationTerm, KDLoss, MixtureTerm, Projector
from mmkd_rl.options import (
    Checked,
    ConfigError,
    Count,
    NonNegative,
    _hints,
    bounds,
    check,
    checked,
    option_names,
    problems,
    under,
)
from mmkd_rl.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    REWARDS,
    TRANSFORMS,
    UPDATERS,
    WEIGHTINGS,
    Registry,
    build,
    construct,
)
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from tests.toy import distiller, toy_teachers


class Base(Checked):
    def __init__(self, size: int = 1, names: Sequence[str] | None = None):
        self.size = size


class Part(Base):
    """Part with options of all types that a config can have."""

    nested = dict(inner=(MODELS, KDLoss, ()))

    def __init__(self,
                 rate: Annotated[float, Field(gt=0, le=1)] = 1.,
                 how: Literal['sum', 'mean'] = 'sum',
                 inner: dict | None = None,
                 flag: bool = False,
                 side: int | tuple[int, ...] = 3,
                 box: Annotated[Sequence[int], Field(
                     min_length=2, max_length=3)] | None = None,
                 free=None,
                 weight: NonNegative | None = None,
                 counts: Sequence[Count] = (),
                 **kwargs):
        super().__init__(**kwargs)
        if rate == .25:
            raise ConfigError('rate', 'must not be a quarter')


@pytest.mark.parametrize('options, expected', [
    (dict(rate='hot'), ["rate must be a number in (0, 1], got 'hot'"]),
    (dict(rate=-1), ['rate must be in (0, 1], got -1']),
    (dict(rate=2.), ['rate must be in (0, 1], got 2.0']),
    (dict(rate=True), ['rate must be a number in (0, 1], got True']),
    (dict(weight=-1), ['weight must be >= 0 or None, got -1']),
    (dict(weight=np.inf), ['weight must be a number >= 0 or None, got inf, '
                           'which is not finite']),
    (dict(weight=np.nan), ['weight must be a number >= 0 or None, got nan, '
                           'which is not finite']),
    (dict(counts=[1, 0]), ['counts must be a list, each a whole number >= 1, '
                           'got [1, 0]']),
    (dict(how='median'), ["how must be one of 'sum', 'mean', got 'median'"]),
    (dict(how='meen'), ["how must be one of 'sum', 'mean', got 'meen'; did "
                        "you mean 'mean'?"]),
    (dict(inner=4), ['inner must be a dict or None, got 4']),
    (dict(flag='yes'), ["flag must be True or False, got 'yes'"]),
    (dict(size=2.5), ['size must be a whole number, got 2.5']),
    (dict(size=True), ['size must be a whole number, got True']),
    (dict(names=[1]), ['names must be a list, each a string or None, got '
                       '[1]']),
    (dict(side='x'), ["side must be a whole number or a list, each a whole "
                      "number, got 'x'"]),
    (dict(box=(1, )), ['box must be a list of 2 to 3 values, each a whole '
                       'number or None, got (1,)']),
    (dict(rat=1), ["Part has no option 'rat'; it takes ['rate', 'how', "
                   "'inner', 'flag', 'side', 'box', 'free', 'weight', "
                   "'counts', 'size', 'names']; did you mean 'rate'?"]),
    (dict(rate=0, how=3, rat=1), ['Part', 'rate', 'how'])])
def test_what_is_wrong(options, expected):
    with pytest.raises(ConfigError) as error:
        check(Part, options)
    lines = str(error.value).splitlines()
    assert len(lines) == len(expected)
    for text, start in zip(lines, expected):
        assert text.startswith(start)


@pytest.mark.parametrize('options', [
    dict(rate=1), dict(rate=.5), dict(inner=None), dict(inner=dict(a=1)),
    dict(side=3), dict(side=(3, 4)), dict(names=['a', 'b']), dict(names=None),
    dict(names=('a', )), dict(free=object()), dict(how='mean', size=2),
    dict(weight=0), dict(weight=None), dict(counts=(1, 2))])
def test_what_is_right(options):
    assert problems(Part, options) == []
    Part(**options)


@pytest.mark.parametrize('number', [np.float64(.5), np.float32(.5),
                                    np.int64(1)])
def test_numbers_of_numpy_are_numbers(number):
    """For sweeps in Python: ``for rate in np.linspace(...)``."""
    assert problems(Part, dict(rate=number)) == []
    assert problems(Part, dict(size=np.int64(1))) == []
    for wrong in (np.float64('nan'), np.float32(2), np.bool_(True)):
        assert problems(Part, dict(rate=wrong))
    assert problems(Part, dict(size=np.float64(1)))


def test_other_packages_declare_what_they_like():
    class Theirs:
        def __init__(self, rate: int = 1):
            self.rate = rate

    assert problems(Theirs, dict(rate=.5)) == []
    assert problems(Theirs, dict(rat=.5))


# ------------------------------------------ parts built by registry or call


def function(rate: NonNegative = 1., **kwargs):
    if kwargs:
        raise ConfigError('kwargs', 'must be empty')


PARTS = Registry('part', scope='test_options')
PARTS.register_module(module=Part)
# Functions of other packages are not checked by their annotations.
function.__module__ = 'mmkd_rl.tests'
function = checked(function)


@pytest.mark.parametrize('make, key', [
    (lambda **o: Part(**o), 'Part.'),
    (lambda rate: Part(rate), 'Part.'),
    (lambda **o: PARTS.build(dict(type='Part', **o)), 'Part.'),
    (lambda **o: build(PARTS, dict(type='Part', **o), 'a.b'), 'a.b.'),
    (lambda **o: construct(Part, o, 'a'), 'a.'),
    (lambda **o: function(**o), 'function.'),
    (lambda rate: function(rate), 'function.')])
def test_each_way_in(make, key):
    with pytest.raises(ConfigError) as error:
        make(rate=-1)
    (name, text), = error.value.problems
    assert name == f'{key}rate' and text.endswith(', got -1')
    assert str(error.value) == f'{name} {text}'


def test_what_depends_on_more_than_a_signature():
    """Checks in the part's constructor name options in the same way."""
    with pytest.raises(ConfigError, match='^a.b.rate must not be'), \
            under('a'):
        build(PARTS, dict(type='Part', rate=.25), 'b')
    with pytest.raises(ConfigError, match='^function.kwargs must be empty'):
        function(more=1)


def test_an_inherited_constructor_is_called_by_its_class():
    class Other(Part):
        """Subclass with the same options."""

    with pytest.raises(ConfigError, match="^Other has no option 'b'"):
        Other(b=1)
    with pytest.raises(ConfigError, match='^Other.size must be a whole'):
        Other(size='x')


def test_a_part_can_be_copied():
    assert pickle.loads(pickle.dumps(Part(size=3))).size == 3


def test_all_problems_of_a_model_in_one_message(tmp_path):
    """Problems of the model, terms, strategy and parts of the strategy."""
    with pytest.raises(ConfigError) as error:
        MODELS.build(distiller(
            toy_teachers(tmp_path),
            probe_size=0,
            projector=dict(act=3),
            losses=[dict(type='KDLoss', temperature=0),
                    dict(type='FitNetLos')],
            weighting=dict(
                type='MTKDRL', histori_bytes=3, scale=2,
                agent=dict(hidden=0),
                reward=dict(type='Nope'),
                updater=dict(epochs='many', tau=.1,
                             optimizer=dict(type='Adam', lrr=1)))))
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        'model.probe_size', 'model.projector.act', 'model.weighting:',
        'model.weighting.scale', 'model.weighting.agent.hidden',
        'model.weighting.reward.type:', 'model.weighting.updater:',
        'model.weighting.updater.epochs',
        'model.weighting.updater.optimizer:', 'model.losses[0].temperature',
        'model.losses[1].type:']


def test_a_config_error():
    """It is a ValueError and a TypeError, so that code that catches one of
    them still works. Other packages build it again from its text, and it can
    be pickled to be sent between processes."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, TypeError)
    error = ConfigError('C', 'must be > 0')
    for other in (pickle.loads(pickle.dumps(error)), type(error)(str(error))):
        assert str(other) == 'C must be > 0'
    whole = ConfigError('is old')
    assert str(whole) == 'is old'
    with pytest.raises(ConfigError, match='^a.b: is old$'), under('a'), \
            under('b'):
        raise whole


# -------------------------------------------------- all parts of the package


#: Parameters with numbers that are not options of a config.
UNBOUNDED = {
    ('Projector', 'student'), ('Projector', 'teacher'),
    ('WeightPolicy', 'sizes')
}


def ours(registry):
    registry.import_from_location()
    return [kind for kind in registry.module_dict.values()
            if kind.__module__.startswith('mmkd_rl.')]


def all_parts():
    for package in ('datasets', 'engine.hooks', 'losses', 'weighting'):
        import_module(f'mmkd_rl.{package}')
    terms = [m for m in ours(MODELS) if inspect.isclass(m) and issubclass(
        m, (DistillationTerm, MixtureTerm))]
    assert len(terms) == 15
    return [*terms, Projector, WeightPolicy, KnowledgeFlowBackbone,
            *(part for registry in (WEIGHTINGS, REWARDS, UPDATERS, HOOKS,
                                    DATASETS, TRANSFORMS)
              for part in ours(registry)
              # Its options are names of classes, which it resolves itself.
              if part.__name__ != 'ClassSubset')]


def unbounded(hint):
    """Number types in an annotation that have no range."""
    if hint in (int, float):
        return True
    if get_origin(hint) is Annotated:
        kind, *fields = get_args(hint)
        return not bounds(fields) and unbounded(kind)
    return any(map(unbounded, get_args(hint)))


@pytest.mark.parametrize('part', all_parts(), ids=lambda part: part.__name__)
def test_each_number_has_a_range(part):
    assert not inspect.isclass(part) or issubclass(part, Checked)
    for name, hint in _hints(part).items():
        assert unbounded(hint) == ((part.__name__, name) in UNBOUNDED), name


@pytest.mark.parametrize('part', all_parts(), ids=lambda part: part.__name__)
def test_each_default_is_right(part):
    defaults = {
        name: p.default
        for kind in (inspect.getmro(part) if inspect.isclass(part) else
                     [part])
        if kind.__module__.startswith('mmkd_rl.')
        for name, p in inspect.signature(kind).parameters.items()
        if p.default is not p.empty and name in (option_names(part) or [name])}
    assert problems(part, defaults) == []
