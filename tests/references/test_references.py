"""The numbers of each case equal the committed ones.

A change that is not meant to change numbers must pass. After a change that is,
rewrite the numbers with ``update.py``, which asks for the reason.
"""

import pytest

from .cases import CASES
from .training import run
from .values import difference, read


@pytest.mark.parametrize('name', CASES)
@pytest.mark.filterwarnings('ignore')
def test_reference(name):
    problems = difference(read(name), run(name), tolerance=1e-8)
    assert not problems, '\n'.join(problems[:10])


def test_a_difference_is_seen():
    old = dict(rows=[dict(loss=1.), dict(loss=2.)], final=dict(w=3.))
    assert not difference(old, old, 0)
    near = dict(rows=[dict(loss=1.), dict(loss=2. + 1e-7)], final=dict(w=3.))
    assert difference(old, near, 1e-8) and not difference(old, near, 1e-6)
    for other in (dict(old, final=dict(w=3.1)), dict(old, final={}),
                  dict(old, rows=[dict(loss=1.), dict(loss=2., more=1.)]),
                  dict(old, rows=old['rows'][:1]),
                  dict(old, final=dict(w=float('nan')))):
        assert difference(old, other, 1e-8)
