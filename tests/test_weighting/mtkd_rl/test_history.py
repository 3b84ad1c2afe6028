"""The history stays within its bytes, and can be saved and loaded."""

from dataclasses import fields

import pytest
import torch

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl import History

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


def firsts(history):
    return [float(t.reward[0, 0]) for t in history]


def test_the_bound_holds_and_what_is_left_covers_the_interval():
    history = History(4 * BYTES)
    for i in range(100):
        history.add(transition(float(i)))
        assert history.nbytes <= history.max_bytes
        # Half full at least once it was full, and evenly spaced from 0.
        kept = firsts(history)
        assert i < 4 or len(kept) >= 2
        assert len({b - a for a, b in zip(kept, kept[1:])}) <= 1
        assert kept[0] == 0
    assert firsts(history) == [0., 32., 64., 96.]
    assert history.share == 4 / 100
    history.clear()
    history.add(transition(7.))
    assert firsts(history) == [7.] and history.share == 1


def run(history, count):
    """As the strategy does: batches that are not kept are not made."""
    made = 0
    for i in range(count):
        if history.wants_next:
            history.add(transition(float(i)))
            made += 1
        else:
            history.skip()
    return made


def test_the_next_interval_begins_with_the_stride():
    """The same batches are kept, and no others are made."""
    history = History(4 * BYTES)
    assert run(history, 100) > 4
    first = firsts(history)
    for _ in range(2):
        history.clear()
        assert run(history, 100) == 4
        assert firsts(history) == first and history.share == 4 / 100
    # After shorter intervals it is small again: half full or more.
    for _ in range(5):
        history.clear()
        run(history, 6)
    assert firsts(history) == [0., 2., 4.]


def test_the_stride_of_an_empty_history_is_saved():
    history, other = History(4 * BYTES), History(4 * BYTES)
    run(history, 100)
    history.clear()
    other.load_state_dict(history.state_dict())
    assert run(other, 100) == run(history, 100) == 4
    # A file of an earlier version.
    other.load_state_dict({})
    assert not len(other) and other.wants_next


def test_of_a_large_batch_what_fits_is_kept():
    history = History(2 * BYTES)
    history.add(transition(0., size=9))
    assert [len(t.state) for t in history] == [8]
    assert history.nbytes == 2 * BYTES


def test_a_sample_that_never_fits():
    row = BYTES // 4
    with pytest.raises(ValueError, match=f'history_bytes: {row - 1} .*'
                       f'{row} bytes'):
        History(row - 1).add(transition(0.))


def test_thinning_goes_on_after_a_resume():
    one, two = History(4 * BYTES), History(4 * BYTES)
    for i in range(11):
        one.add(transition(float(i)))
    two.load_state_dict(one.state_dict())
    for i in range(11, 50):
        one.add(transition(float(i)))
        two.add(transition(float(i)))
        assert firsts(one) == firsts(two) and one.share == two.share


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
