"""Arguments of a model's call, and losses with the same name."""

import pytest

from mmkd_rl.utils.forward_hooks import argument, computes_losses, with_losses


def test_arguments_by_position_and_by_name():
    for args, kwargs in ((('x', 'y', 'loss'), {}), (('x', ), dict(
            data_samples='y', mode='loss')), ((), dict(
                inputs='x', data_samples='y', mode='loss'))):
        assert argument('inputs', args, kwargs) == 'x'
        assert argument('data_samples', args, kwargs) == 'y'
        assert computes_losses(args, kwargs)
    assert argument('data_samples', ('x', ), {}) is None
    assert not computes_losses(('x', ), {})  # MMEngine's default: 'tensor'
    assert not computes_losses(('x', 'y', 'predict'), {})


def test_the_models_own_sum_is_renamed():
    """MMEngine logs the sum of all losses as ``loss``."""
    own = dict(loss=1, accuracy=2)
    assert list(with_losses(own, dict(loss_kl=3)).items()) == [
        ('accuracy', 2), ('loss_student', 1), ('loss_kl', 3)]
    assert own == dict(loss=1, accuracy=2)


@pytest.mark.parametrize('own, name', [
    (dict(loss_kl=1), 'loss_kl'),
    (dict(loss=1, loss_student=2), 'loss_student')])
def test_no_loss_is_overwritten(own, name):
    with pytest.raises(ValueError, match=rf"own losses \['{name}'\]"):
        with_losses(own, dict(loss_kl=3))
