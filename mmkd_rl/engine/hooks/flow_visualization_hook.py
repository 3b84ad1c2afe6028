"""Record and draw Knowledge Flow's weights p_w over training (the paper's
Fig. 1c and 7)."""

from __future__ import annotations

import os
from dataclasses import asdict

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_rl.engine.hooks.common import save_picture
from mmkd_rl.flow import KnowledgeFlow, flow_of
from mmkd_rl.options import Checked, Count
from mmkd_rl.registry import HOOKS
from mmkd_rl.visualization.common import check_marks
from mmkd_rl.visualization.flow import FILE_NAME, FlowRecord, plot_flow

#: Where a checkpoint keeps the record, so that resumed runs draw all of it.
CHECKPOINT_KEY = 'mmkd_rl_flow'


@HOOKS.register_module()
class FlowVisualizationHook(Checked, Hook):
    """Records the weights of a model's knowledge flow.

    In the work directory: ``knowledge_flow.json``, written with each epoch
    and checkpoint, and ``knowledge_flow.png`` at the end, which also goes to
    every visualisation backend. The scalars are KnowledgeFlowHook's.

    Args:
        interval: Iterations between two points; the weights before training
            and at its end are recorded too.
        mark: Notes by teacher for the picture, ``{'svhn': 'house numbers'}``.

    Raises:
        ValueError: Before training: the model has no knowledge flow, or a
            marked teacher does not exist.
    """

    # After hooks that change the weights and retire teachers, before
    # CheckpointHook, which saves the record.
    priority = 'LOW'

    def __init__(self,
                 interval: Count = 50,
                 mark: dict[str, str] | None = None) -> None:
        self.interval = interval
        self.mark = dict(mark or {})
        self.record: FlowRecord | None = None
        self._flow: KnowledgeFlow | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin a record, or continue a resumed one."""
        flow = self._flow = _flow(runner)
        new = FlowRecord(
            list(flow.layers), [list(names) for names in flow.candidates],
            list(flow.teacher_names))
        check_marks('FlowVisualizationHook.mark', self.mark, new.teachers)
        old = self.record
        if old is None or (old.layers, old.candidates, old.teachers) != (
                new.layers, new.candidates, new.teachers):
            self.record = new
            self._note(runner.iter)

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch=None) -> None:
        """Record which teachers are no longer run."""
        self._note_retired(runner.iter)

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Read the weights every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._note(runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the record to disk."""
        self._save(runner)

    def after_train(self, runner: Runner) -> None:
        """Draw the picture."""
        assert self.record is not None
        # runner.iter is already the number of iterations. Recorded in any
        # case: the last teachers may have been retired just before.
        self._note(runner.iter)
        self._save(runner)
        if is_main_process():
            save_picture(runner,
                         os.path.splitext(FILE_NAME)[0],
                         plot_flow(self.record, self.mark))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the record in the checkpoint, and on the disk: loops that count
        iterations have no epochs."""
        if self.record is not None:
            checkpoint[CHECKPOINT_KEY] = asdict(self.record)
            self._save(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue the record of a resumed run."""
        if runner._resume and CHECKPOINT_KEY in checkpoint:
            self.record = FlowRecord(**checkpoint[CHECKPOINT_KEY])

    def _note(self, iteration: int) -> None:
        record, flow = self.record, self._flow
        assert record is not None and flow is not None
        self._note_retired(iteration)
        if record.iterations[-1:] == [iteration]:
            del record.iterations[-1], record.weights[-1]
        record.iterations.append(iteration)
        record.weights.append(
            [row.detach().tolist() for row in flow.weights()])

    def _note_retired(self, iteration: int) -> None:
        record, flow = self.record, self._flow
        assert record is not None and flow is not None
        # Teachers that are active again are removed from `retired`.
        record.retired = {
            name: record.retired.get(name, iteration)
            for name in record.teachers
            if name not in flow.active_teachers
        }

    def _save(self, runner: Runner) -> None:
        if is_main_process() and self.record is not None:
            self.record.save(os.path.join(runner.work_dir, FILE_NAME))


def _flow(runner: Runner) -> KnowledgeFlow:
    """The knowledge flow in the runner's model.

    Raises:
        ValueError: The model has none, or several.
    """
    try:
        return flow_of(runner.model)
    except ValueError as error:
        raise ValueError(
            'custom_hooks has FlowVisualizationHook, which needs a model with '
            f'one KnowledgeFlowBackbone: {error}') from error
