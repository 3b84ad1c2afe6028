"""Steps of the demo: their commands, and when a step counts as done."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmkd_rl  # noqa: F401  (registers the scope mmkd_rl)
from paper_tables.identity import file_identity
from paper_tables.runs import write_json
from task_runner import LOCK, Job

TEACHERS = ('resnet20', 'wrn10_2', 'densenet')
CORRUPTED = 'densenet'
RECORD = 'done.json'


@dataclass
class Step(Job):
    """One command, which is run in the repository's folder.

    Attributes:
        command: Arguments of the Python interpreter.
        output: File that the command writes; the step is done if the file is
            there with the recorded content.
        inputs: Outputs of the steps that this step needs.
        config: Config of a training step.
    """
    command: list[str] = field(default_factory=list)
    output: Path = Path()
    inputs: list[Path] = field(default_factory=list)
    config: str | None = None

    def record(self) -> dict | None:
        """Record of the finished step, with ``seconds`` and ``metrics``;
        ``None`` if the step is not finished."""
        try:
            record = json.loads((self.folder / RECORD).read_text())
            same = record['output'] == file_identity(str(self.output))
            return record if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def done(self) -> str | None:
        """See :meth:`Job.done`."""
        record = self.record()
        if record is None or record['key'] != self._key():
            return None
        return describe(record['metrics'])

    def prepare(self) -> list[str]:
        """Empty the folder: an interrupted step starts again from the
        beginning."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        # Computed before the run, as the config may be edited meanwhile.
        self._started = self._key()
        return [sys.executable, *self.command]

    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """See :meth:`Job.ended`."""
        if not whole:
            return ''
        if not self.output.is_file():
            raise FileNotFoundError(f'it wrote no {self.output}')
        metrics = last_metrics(self.folder)
        write_json(self.folder / RECORD, dict(
            key=self._started, output=file_identity(str(self.output)),
            seconds=round(seconds, 1), cpu_seconds=round(cpu_seconds, 1),
            metrics=metrics))
        return describe(metrics)

    def _key(self) -> str:
        """Hash of the command, the config and the inputs."""
        text = '' if self.config is None else \
            Config.fromfile(self.config).pretty_text
        inputs = [file_identity(str(path)) for path in self.inputs]
        return hashlib.sha256(
            json.dumps([self.command, text, inputs]).encode()).hexdigest()


def plan(root: Path, seed: int, tiny: bool) -> list[Step]:
    """Make all steps, in the order in which they are started.

    Args:
        root: Folder of the demo.
        seed: Seed of the trainings.
        tiny: Only a few iterations a step.
    """
    def step(name: str, command: list[str], needs: list[Step],
             output: str | Path, **kwargs: Any) -> Step:
        return Step(name, root / name, [s.name for s in needs],
                    command=command, output=root / name / output,
                    inputs=[s.output for s in needs], **kwargs)

    def train(name: str, needs: list[Step], options: dict[str, Any]) -> Step:
        config = f'configs/demo/{name}.py'
        if tiny:
            options = {**options, **_tiny_options(config)}
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(options)
        loop = cfg.train_cfg
        if 'max_epochs' in loop:
            epochs, last = loop.max_epochs, f'epoch_{loop.max_epochs}.pth'
        else:
            epochs, last = 1, f'iter_{loop.max_iters}.pth'
        command = [
            'tools/train.py', config, '--work-dir', str(root / name),
            '--seed', str(seed)
        ]
        if options:
            command += ['--cfg-options']
            command += [f'{k}={v}' for k, v in options.items()]
        return step(name, command, needs, last, config=config, epochs=epochs)

    def export(name: str, student: Step) -> Step:
        out = 'backbone.pth'
        return step(
            name, ['tools/export_student.py', str(student.output),
                   str(root / name / out), '--to', 'mmdet'], [student], out)

    def downstream(kind: str, which: str, backbone: Step) -> Step:
        data = f'{scenes_dir}/'
        options = {
            'model.backbone.init_cfg.checkpoint': str(backbone.output),
            'train_dataloader.dataset.data_root': data,
            'val_dataloader.dataset.data_root': data,
            'test_dataloader.dataset.data_root': data,
        }
        if kind == 'mask_rcnn':
            for which_set in ('val', 'test'):
                options[f'{which_set}_evaluator.ann_file'] = \
                    f'{data}annotations/test.json'
        return train(f'{kind}_{which}', [scenes, backbone], options)

    teachers = [train(f'teacher_{name}', [], {}) for name in TEACHERS]
    checkpoints = {
        f'model.teachers.{i}.checkpoint': str(teacher.output)
        for i, teacher in enumerate(teachers)
    }
    alone = train('student_alone', [], {})
    mtkd_rl = train('student_mtkd_rl', teachers, checkpoints)
    aver = train('student_aver', teachers, checkpoints)
    scenes_dir = root / 'scenes' / 'data'
    number = (16, 8) if tiny else (400, 100)
    scenes = step(
        'scenes', [
            '-m', 'mmkd_rl.datasets.scenes', str(scenes_dir), '--train',
            str(number[0]), '--test', str(number[1])
        ], [], 'data/scenes.json')
    plain_backbone = export('export_alone', alone)
    distilled_backbone = export('export_mtkd_rl', mtkd_rl)
    return [
        *teachers, alone, scenes, plain_backbone, mtkd_rl, aver,
        distilled_backbone,
        *(downstream(kind, which, backbone)
          for which, backbone in (('plain', plain_backbone),
                                  ('mtkd_rl', distilled_backbone))
          for kind in ('mask_rcnn', 'pspnet'))
    ]


def _tiny_options(config: str) -> dict[str, Any]:
    """Overrides that shrink a training to a few iterations."""
    if 'mask_rcnn' in config or 'pspnet' in config:
        return {
            'train_cfg.max_iters': 4,
            'train_cfg.val_interval': 4,
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'param_scheduler.1.end': 4,
            'param_scheduler.1.T_max': 3,
            'default_hooks.checkpoint.interval': 4,
        }
    options = {
        'train_cfg.max_epochs': 2,
        'train_cfg.val_interval': 2,
        'param_scheduler.1.end': 2,
        'param_scheduler.1.T_max': 1,
        'train_dataloader.dataset.renderings': 1,
        'train_dataloader.dataset.indices': 256,
        'val_dataloader.dataset.renderings': 1,
        'val_dataloader.dataset.indices': 100,
        'test_dataloader.dataset.renderings': 1,
        'test_dataloader.dataset.indices': 100,
    }
    if 'mtkd_rl' in config:
        options['custom_hooks.0.warmup'] = 3
        options['custom_hooks.0.interval'] = 2
        options['custom_hooks.1.interval'] = 1
    elif 'aver' in config:
        options['custom_hooks.0.interval'] = 1
    return options


def last_metrics(folder: Path) -> dict[str, float]:
    """Metrics of the last validation, as MMEngine logged them."""
    metrics: dict[str, float] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if not any('loss' in key for key in entry):
                metrics.update(entry)
    return metrics


def describe(metrics: dict[str, float]) -> str:
    """Result of a step in a few words."""
    if 'accuracy/top1' in metrics:
        return f'accuracy {metrics["accuracy/top1"]:.1f} %'
    if 'coco/bbox_mAP' in metrics:
        return (f'box AP {100 * metrics["coco/bbox_mAP"]:.1f} %, '
                f'mask AP {100 * metrics["coco/segm_mAP"]:.1f} %')
    if 'mIoU' in metrics:
        return f'mIoU {metrics["mIoU"]:.1f} %'
    return 'done'
