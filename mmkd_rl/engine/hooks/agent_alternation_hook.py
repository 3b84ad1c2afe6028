"""Train student and agent in turns (MTKD-RL, Algorithms 1 and 2).

While the student is trained the agent is frozen and each batch goes to the
history; when an interval is over, the agent is trained on the history, which
then begins anew. Until the first time weights are equal (Algorithm 1).
"""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_rl.engine.hooks.common import distillation_in, unwrapped
from mmkd_rl.registry import HOOKS
from mmkd_rl.weighting import MTKDRL

#: Where a checkpoint keeps the agent.
CHECKPOINT_KEY = 'mmkd_rl_agent'


@HOOKS.register_module()
class AgentAlternationHook(Hook):
    """Trains the agent and keeps it in the run's checkpoints.

    In distributed training each process has its own history. After an epoch
    (``by_epoch=True``, ``interval=1``) all are empty; a checkpoint that is
    written in between holds the main process's, and all resume with that.

    Args:
        warmup: Length of the phase with equal weights (Algorithm 1: 1 epoch).
        interval: Student's training between two of the agent's (Algorithm 2:
            1 epoch; published code: 1,000 iterations).
        by_epoch: Whether these count epochs or the student's iterations.

    Raises:
        ValueError: A length is not positive.
    """

    # Before checkpoints are written and scalars are logged.
    priority = 'NORMAL'

    def __init__(self,
                 warmup: int = 1,
                 interval: int = 1,
                 by_epoch: bool = True) -> None:
        for name, value in (('warmup', warmup), ('interval', interval)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'AgentAlternationHook.{name} must be an '
                                 f'integer >= 1, got {value!r}')
        self.warmup, self.interval, self.by_epoch = warmup, interval, by_epoch

    def before_train(self, runner: Runner) -> None:
        """Take charge of the agent.

        Raises:
            TypeError: The model's strategy has no agent.
            ValueError: The agent's turn would never come.
        """
        strategy = self._strategy(runner)
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'AgentAlternationHook counts epochs, but train_cfg counts '
                'iterations: set by_epoch=False and give warmup and interval '
                'in iterations')
        unit, length = ('epochs', runner.max_epochs) if self.by_epoch else (
            'iterations', runner.max_iters)
        if self.warmup >= length:
            raise ValueError(
                f'AgentAlternationHook.warmup={self.warmup} {unit}, but '
                f'training has {length}: weights would stay equal. Give a '
                'shorter warmup or count in iterations (by_epoch=False)')
        strategy.attended = True
        strategy.learner.synchronize()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Remember the batch; maybe train the agent."""
        strategy = self._strategy(runner)
        distillation = distillation_in(runner, 'AgentAlternationHook')
        step, after = distillation.last_step, None
        assert step is not None
        if step.seen is not None:
            # In the precision of the step itself.
            with runner.optim_wrapper.optim_context(runner.model):
                after = distillation.forward_after_step(
                    unwrapped(runner), step.seen)
        strategy.remember(step.weights.record, after)
        if not self.by_epoch and self._due(runner.iter + 1):
            self._update(runner, strategy)

    def after_train_epoch(self, runner: Runner) -> None:
        """Maybe train the agent."""
        if self.by_epoch and self._due(runner.epoch + 1):
            self._update(runner, self._strategy(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Agent, its optimiser and history go into the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = \
            self._strategy(runner).learner.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run goes on with its agent.

        Raises:
            ValueError: The checkpoint has no agent, or another one.
        """
        if not runner._resume:
            return  # only the weights were asked for
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                f'the checkpoint to resume from has no {CHECKPOINT_KEY!r}: it '
                'was not written by a run with AgentAlternationHook. To start '
                'from its weights alone use load_from without --resume')
        self._strategy(runner).learner.load_state_dict(
            checkpoint[CHECKPOINT_KEY])

    def _due(self, done: int) -> bool:
        """Whether the agent's turn comes after ``done`` units."""
        return done >= self.warmup and \
            (done - self.warmup) % self.interval == 0

    def _update(self, runner: Runner, strategy: MTKDRL) -> None:
        for name, value in strategy.learner.update().items():
            runner.message_hub.update_scalar(f'train/agent/{name}', value)

    def _strategy(self, runner: Runner) -> MTKDRL:
        strategy = distillation_in(runner, 'AgentAlternationHook').weighting
        if not isinstance(strategy, MTKDRL):
            raise TypeError(
                'custom_hooks has AgentAlternationHook, but model.weighting '
                f'is {type(strategy).__name__}, which has no agent; remove '
                "the hook or use weighting=dict(type='MTKDRL')")
        return strategy
