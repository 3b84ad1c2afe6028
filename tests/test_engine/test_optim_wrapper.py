import pytest
import torch
from torch import nn

from mmkd_rl.engine import optim_wrapper
from mmkd_rl.engine.optim_wrapper import BFloat16OptimWrapper
from mmkd_rl.options import ConfigError
from mmkd_rl.registry import OPTIM_WRAPPERS
from mmkd_rl.utils.precision import bfloat16_slowdown


def test_forward_in_bfloat16_weights_in_float32():
    model = nn.Linear(4, 2)
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='BFloat16OptimWrapper',
            precision='bfloat16',
            clip_grad=dict(max_norm=1.),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
    assert isinstance(wrapper, BFloat16OptimWrapper)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.rand(3, 4))
    assert output.dtype == torch.bfloat16
    assert model(torch.rand(3, 4)).dtype == torch.float32
    wrapper.update_params(output.float().square().sum())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_gradients_are_accumulated():
    model = nn.Linear(4, 2)
    wrapper = BFloat16OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.weight.detach().clone()
    changed = []
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.rand(3, 4)).float().square().sum()
        wrapper.update_params(loss)
        changed.append(not torch.equal(model.weight, before))
    assert changed == [False, True]


@pytest.mark.parametrize('slowdown, precision, used', [
    (0.5, 'auto', torch.bfloat16), (7., 'auto', torch.float32),
    (7., 'bfloat16', torch.bfloat16), (.5, 'float32', torch.float32)])
def test_float32_where_bfloat16_is_emulated(slowdown, precision, used,
                                            monkeypatch):
    said, asked = [], []
    monkeypatch.setattr(optim_wrapper, 'print_log',
                        lambda text, *args, **kwargs: said.append(text))
    monkeypatch.setattr(optim_wrapper, 'bfloat16_slowdown',
                        lambda device: asked.append(device) or slowdown)
    model = nn.Linear(4, 2)
    wrapper = BFloat16OptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        precision=precision)
    for _ in range(2):
        with wrapper.optim_context(model):
            assert model(torch.rand(3, 4)).dtype == used
    assert len(asked) == (precision == 'auto')  # once a run
    assert len(said) == (precision == 'auto' and slowdown > 2)
    assert not said or '7.0 times' in said[0]


def test_the_measurement_leaves_the_random_numbers_alone():
    bfloat16_slowdown.cache_clear()
    state = torch.get_rng_state()
    assert 0.01 < bfloat16_slowdown(torch.device('cpu')) < 100
    assert torch.equal(state, torch.get_rng_state())


def test_an_unknown_precision():
    model = nn.Linear(4, 2)
    with pytest.raises(ConfigError, match='precision'):
        BFloat16OptimWrapper(
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            precision='bf16')
