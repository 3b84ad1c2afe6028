import torch
from torch import nn

from mmkd_rl.engine.optim_wrapper import BFloat16OptimWrapper
from mmkd_rl.registry import OPTIM_WRAPPERS


def test_forward_in_bfloat16_weights_in_float32():
    model = nn.Linear(4, 2)
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='BFloat16OptimWrapper',
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
