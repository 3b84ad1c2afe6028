"""The agent (MTKD-RL, Appendix A.1): generates weights from a state.

One network over the concatenated states of all teachers: linear to 128, ReLU,
two linear heads, each with a softmax over the M teachers: w_l^gen and w_f^gen.
The main text has one agent for each teacher instead (``per_teacher=True``),
which gives one score for each head; the softmax is over these scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_rl.options import (
    Checked,
    ConfigError,
    Count,
    NonNegative,
    Positive,
)
from mmkd_rl.weighting.mtkd_rl.standardize import RunningStandardizer

#: Sources of the action, in the balances' order.
SOURCES = ('agent', 'confidence', 'divergence')
NUM_SOURCES = len(SOURCES)


class WeightPolicy(Checked, nn.Module):
    """States to log-probabilities over the teachers.

    Heads start at zero, so that the first weights are equal.

    Args:
        sizes: Size of each teacher's state; their sum is S.
        hidden: Width of the hidden layer.
        per_teacher: One network for each teacher (main text) instead of one
            for all (appendix and published code).
        standardize: Standardise the states (off in the published code).
        balance: gamma of the agent, confidence and divergence in the action
            (Eqs. 13, 14), normalised to sum to one; 0 leaves a source out.
        learnable_balance: Train the balances of the sources that are not
            left out, through a softmax that starts at ``balance``; ``False``:
            they are constant (A.1 has both).
        balance_lr: Learning rate of these six numbers; ``None``: that of the
            other weights. A larger one is needed: with Adam's 1e-3 a softmax
            of equal scores needs thousands of steps to leave a source out,
            and an update has about thirty.

    Raises:
        ConfigError: The balances are not three, or all 0.
    """

    constant_balance: Tensor

    def __init__(self,
                 sizes: Sequence[int],
                 hidden: Count = 128,
                 per_teacher: bool = False,
                 standardize: bool = True,
                 balance: Sequence[NonNegative] = (1., 1., 1.),
                 learnable_balance: bool = True,
                 balance_lr: Positive | None = 0.05) -> None:
        super().__init__()
        if len(balance) != NUM_SOURCES or not sum(balance):
            raise ConfigError(
                'balance', 'must be three numbers (agent, confidence, '
                f'divergence), not all 0; got {balance!r}')
        self.sizes = tuple(sizes)
        self.num_teachers = len(self.sizes)
        total = sum(self.sizes)
        self.standardizer = RunningStandardizer(total) if standardize else None
        inputs = self.sizes if per_teacher else (total, )
        outputs = 2 if per_teacher else 2 * self.num_teachers
        self.trunks = nn.ModuleList(nn.Linear(s, hidden) for s in inputs)
        heads = [nn.Linear(hidden, outputs) for _ in inputs]
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)
        gamma = torch.tensor([float(b) for b in balance])
        self.register_buffer('constant_balance',
                             (gamma / gamma.sum()).repeat(2, 1))
        # The score of a source that is left out is never used.
        start = self.constant_balance.clamp_min(1e-6).log()
        self.balance = nn.Parameter(
            start - start.mean()) if learnable_balance else None
        self.balance_lr = balance_lr

    def forward(self, state: Tensor) -> Tensor:
        """log w^gen, [B, 2, M], logit weights first.

        Args:
            state: States as built (they are standardised here), [B, S], in
                any precision.
        """
        state = self.standardized(state)
        parts = state.split(self.sizes, dim=1) if len(self.trunks) > 1 or \
            self.num_teachers == 1 else (state, )
        scores = [
            head(F.relu(trunk(part)))
            for part, trunk, head in zip(parts, self.trunks, self.heads)
        ]
        # per teacher: M times [B, 2] -> [B, 2, M]; joint: [B, 2 M] -> same
        scores_B2M = torch.stack(scores, 2) if len(scores) > 1 else \
            scores[0].view(-1, 2, self.num_teachers)
        return F.log_softmax(scores_B2M, dim=-1)

    def standardized(self, state: Tensor) -> Tensor:
        """The network's input, [B, S], in the network's precision."""
        state = state.to(self.constant_balance.dtype)
        return state if self.standardizer is None else self.standardizer(state)

    def parameter_groups(self) -> list:
        """Parameters for an optimiser; the balances are a group with their own
        learning rate."""
        if self.balance is None or self.balance_lr is None:
            return list(self.parameters())
        rest = [p for p in self.parameters() if p is not self.balance]
        return [
            dict(params=rest),
            dict(params=[self.balance], lr=self.balance_lr)
        ]

    def balances(self) -> Tensor:
        """gamma of Eqs. (13) and (14), [2, 3]: logits and features; agent,
        confidence and divergence. Rows sum to one."""
        if self.balance is None:
            return self.constant_balance
        on = self.constant_balance > 0
        return self.balance.masked_fill(~on, -torch.inf).softmax(-1)
