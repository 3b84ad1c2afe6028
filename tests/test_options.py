"""Options are checked against the signature of the part that gets them: types,
ranges, choices, names; all problems of a config in one message."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from pydantic import Field

from mmkd_rl.options import ConfigError, problems
from mmkd_rl.registry import MODELS
from tests.toy import distiller, toy_teachers


class Base:
    def __init__(self, size: int = 1, names: Sequence[str] | None = None):
        self.size = size


class Part(Base):
    """With what a config can hold."""

    def __init__(self,
                 rate: Annotated[float, Field(gt=0, le=1)] = 1.,
                 how: Literal['sum', 'mean'] = 'sum',
                 inner: dict | None = None,
                 flag: bool = False,
                 side: int | tuple[int, ...] = 3,
                 free=None,
                 **kwargs):
        super().__init__(**kwargs)


# As a part of ours: others' annotations are not held against the user.
Part.__module__ = 'mmkd_rl.tests'


@pytest.mark.parametrize('options, expected', [
    (dict(rate='hot'), ["a.rate must be a number, got 'hot'"]),
    (dict(rate=-1), ['a.rate must be > 0, got -1']),
    (dict(rate=2.), ['a.rate must be <= 1, got 2.0']),
    (dict(rate=True), ['a.rate must be a number, got True']),
    (dict(how='median'), ["a.how must be one of 'sum', 'mean', got "
                          "'median'"]),
    (dict(inner=4), ['a.inner must be a dict or None, got 4']),
    (dict(flag='yes'), ["a.flag must be True or False, got 'yes'"]),
    (dict(size=2.5), ['a.size must be a whole number, got 2.5']),
    (dict(names=[1]), ['a.names must be a list, each a string or None, got '
                       '[1]']),
    (dict(side='x'), ["a.side must be a whole number or a list, each a whole "
                      "number, got 'x'"]),
    (dict(rat=1), ["a: Part has no option 'rat'; it takes ['rate', 'how', "
                   "'inner', 'flag', 'side', 'free', 'size', 'names']; did "
                   "you mean 'rate'?"]),
    (dict(rate=0, how=3, rat=1), ['a: Part', 'a.rate', 'a.how'])])
def test_what_is_wrong(options, expected):
    found = problems(Part, options, 'a')
    assert len(found) == len(expected)
    for text, start in zip(found, expected):
        assert text.startswith(start)


@pytest.mark.parametrize('options', [
    dict(rate=1), dict(rate=.5), dict(inner=None), dict(inner=dict(a=1)),
    dict(side=3), dict(side=(3, 4)), dict(names=['a', 'b']), dict(names=None),
    dict(names=('a', )), dict(free=object()), dict(how='mean', size=2)])
def test_what_is_right(options):
    assert problems(Part, options, 'a') == []
    Part(**options)


def test_other_packages_declare_what_they_like():
    class Theirs:
        def __init__(self, rate: int = 1):
            self.rate = rate

    assert problems(Theirs, dict(rate=.5), 'a') == []
    assert problems(Theirs, dict(rat=.5), 'a')


def test_all_problems_of_a_model_in_one_message(tmp_path):
    """Of terms, strategy, and the parts of the strategy."""
    with pytest.raises(ConfigError) as error:
        MODELS.build(distiller(
            toy_teachers(tmp_path),
            losses=[dict(type='KDLoss', temperature='hot'),
                    dict(type='FitNetLos')],
            weighting=dict(
                type='MTKDRL', histori_bytes=3, scale=2,
                reward=dict(type='Nope'),
                updater=dict(epochs='many', tau=.1))))
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        'model.weighting:', 'model.weighting.scale',
        "model.weighting.reward.type='Nope'", 'model.weighting.updater:',
        'model.weighting.updater.epochs', 'model.losses[0].temperature',
        "model.losses[1].type='FitNetLos'"]


def test_it_is_a_value_and_a_type_error():
    """Whoever caught one of the two goes on doing so."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, TypeError)
