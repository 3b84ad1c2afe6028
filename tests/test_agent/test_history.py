"""The history stays within its bytes and survives a file."""

from dataclasses import fields

import pytest
import torch

from mmkd_rl.agent import History
from mmkd_rl.records import Transition

FIELDS = [f.name for f in fields(Transition)]


def transition(value, size=4, count=2):
    return Transition(
        torch.full((size, 3), value).half(),
        torch.full((size, 2, count), value),
        torch.full((size, 2, 2, count), value),
        torch.full((size, count), value))


BYTES = 4 * (3 * 2 + (4 + 8 + 2) * 4)


def test_bytes_are_counted():
    history = History()
    history.add(transition(0.))
    assert history.nbytes == BYTES
    history.add(transition(0., size=1))
    assert history.nbytes == BYTES + BYTES // 4 and len(history) == 2
    history.clear()
    assert history.nbytes == 0 and len(history) == 0


def test_the_bound_holds_and_the_oldest_go():
    history = History(3 * BYTES + 1)
    for i in range(10):
        history.add(transition(float(i)))
        assert history.nbytes <= history.max_bytes
    assert [float(t.reward[0, 0]) for t in history] == [7., 8., 9.]
    history.add(transition(10., size=9))  # takes the room of three
    assert [len(t.state) for t in history] == [9]
    assert history.nbytes == 9 * BYTES // 4


def test_a_batch_that_never_fits():
    with pytest.raises(ValueError, match=f'history_bytes={BYTES - 1} .*'
                       f'{BYTES} bytes'):
        History(BYTES - 1).add(transition(0.))
    with pytest.raises(ValueError, match='history_bytes must be >= 1, got 0'):
        History(0)


def test_round_trip_through_a_file(tmp_path):
    history = History()
    for i, size in enumerate((4, 4, 1)):
        history.add(transition(float(i), size))
    torch.save(history.state_dict(), tmp_path / 'h.pth')
    other = History()
    other.add(transition(99.))
    other.load_state_dict(torch.load(tmp_path / 'h.pth', weights_only=True))
    assert len(other) == 3 and other.nbytes == history.nbytes
    for a, b in zip(history, other):
        for name in FIELDS:
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype and torch.equal(x, y)
            assert y.untyped_storage().nbytes() == y.numel() * \
                y.element_size()


def test_an_empty_history_round_trips():
    other = History()
    other.add(transition(1.))
    other.load_state_dict(History().state_dict())
    assert len(other) == 0
