"""The main job on embedded data: teachers, students, detectors, segmentors.

Every step is an ordinary command on a config of configs/demo/: nothing here
is special to the demo, and each line of it can be run by hand. What the steps
wrote stays in work_dirs/demo/: one folder a step with its log, summary.json
(accuracies, AP and mIoU as fractions of 1), and the pictures. A step whose
command, config and inputs are unchanged is not run again; changes of the code
do not count, so use --fresh after them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
TEACHERS = ('resnet20', 'wrn10_2', 'densenet')
CORRUPTED = 'densenet'
RECORD = 'done.json'
LOG = 'log.txt'
BAD_INPUT, INTERRUPTED = 2, 130
PROGRESS = (re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]'),
            re.compile(r'Iter\(train\)\s+\[\s*(\d+)/(\d+)\]'))


class StepFailed(Exception):
    """A step's command ended with an error."""


@dataclass
class Step:
    """One command.

    Attributes:
        name: Also its folder's.
        command: Arguments after the interpreter.
        needs: Names of the steps whose output it reads.
        output: The file whose presence and content say that it is done.
        config: For training steps, the config they run.
        options: Overrides of that config.
        epochs: Length of the training, for the progress.
    """
    name: str
    command: list[str]
    needs: list[str]
    output: Path
    config: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1


@dataclass
class Running:
    """A step's process."""
    step: Step
    process: subprocess.Popen
    start: float
    key: str


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--seed', type=int, default=0,
                        help='of the training; the images stay the same')
    parser.add_argument('--fresh', action='store_true',
                        help='run every step again')
    parser.add_argument('--tiny', action='store_true',
                        help='every step for a few iterations only, to see '
                        'that it runs; its numbers mean nothing')
    parser.add_argument('--work-dir', type=Path,
                        help='default: work_dirs/demo, or work_dirs/demo_tiny')
    parser.add_argument('--jobs', type=int, metavar='N',
                        help='steps that run side by side (default: 2, or 1 '
                        'on a single core)')
    args = parser.parse_args(argv)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f'--jobs must be >= 1, got {args.jobs}')
    if args.seed < 0:
        parser.error(f'--seed must be >= 0, got {args.seed}')
    if args.work_dir is None:
        args.work_dir = Path('work_dirs/demo_tiny' if args.tiny else
                             'work_dirs/demo')
    return args


# ---------------------------------------------------------------- the steps


def plan(root: Path, seed: int, tiny: bool) -> list[Step]:
    """All steps, in the order in which they are started."""
    from mmengine.config import Config

    import mmkd_rl  # noqa: F401  (makes the scope known)

    def train(name: str, needs: list[str], options: dict[str, Any]) -> Step:
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
        return Step(name, command, needs, root / name / last, config, options,
                    epochs)

    def export(name: str, student: Step) -> Step:
        out = root / name / 'backbone.pth'
        return Step(
            name, ['tools/export_student.py', str(student.output), str(out),
                   '--to', 'mmdet'], [student.name], out)

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
        return train(f'{kind}_{which}', ['scenes', backbone.name], options)

    teachers = [train(f'teacher_{name}', [], {}) for name in TEACHERS]
    checkpoints = {
        f'model.teachers.{i}.checkpoint': str(step.output)
        for i, step in enumerate(teachers)
    }
    names = [step.name for step in teachers]
    alone = train('student_alone', [], {})
    mtkd_rl = train('student_mtkd_rl', names, checkpoints)
    aver = train('student_aver', names, checkpoints)
    scenes_dir = root / 'scenes' / 'data'
    number = (16, 8) if tiny else (400, 100)
    scenes = Step(
        'scenes', [
            '-m', 'mmkd_rl.datasets.scenes', str(scenes_dir), '--train',
            str(number[0]), '--test', str(number[1])
        ], [], scenes_dir / 'scenes.json')
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


# ------------------------------------------------------------- running them


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def step_key(step: Step, steps: dict[str, Step]) -> str:
    """What a step depends on, in one string.

    All steps that it needs must be done.
    """
    text = ''
    if step.config is not None:
        from mmengine.config import Config
        text = Config.fromfile(step.config).pretty_text
    inputs = [file_digest(steps[name].output) for name in step.needs]
    return hashlib.sha256(
        json.dumps([step.command, text, inputs]).encode()).hexdigest()


def read_record(step: Step, root: Path) -> dict | None:
    """What is known about a finished step; ``None`` if it is not finished."""
    try:
        record = json.loads((root / step.name / RECORD).read_text())
        if record['output'] == file_digest(step.output):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def write_json(path: Path, content: Any) -> None:
    """Write it whole or not at all."""
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(content, indent=2) + '\n')
    temporary.replace(path)


def last_metrics(folder: Path) -> dict[str, float]:
    """The numbers that MMEngine's last validation wrote."""
    metrics: dict[str, float] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if not any('loss' in key for key in entry):
                metrics.update(entry)
    return metrics


class Conductor:
    """Runs steps, some side by side, and tells the user how far they are.

    Args:
        steps: In the order of preference.
        root: The demo's folder.
        jobs: Processes at once.
        threads: Of each process, unless OMP_NUM_THREADS says otherwise.
        fresh: Run even what is done.
    """

    def __init__(self, steps: list[Step], root: Path, jobs: int, threads: int,
                 fresh: bool) -> None:
        self.steps = {step.name: step for step in steps}
        self.root, self.jobs, self.fresh = root, jobs, fresh
        self.records: dict[str, dict] = {}
        self.reused: list[str] = []
        self.running: list[Running] = []
        self.start = time.monotonic()
        self._shown = ''
        # More threads than cores make PyTorch many times slower.
        number = os.environ.get('OMP_NUM_THREADS', str(threads))
        self._env: dict[str, str] = dict(
            os.environ,
            OMP_NUM_THREADS=number,
            MKL_NUM_THREADS=number,
            MPLBACKEND='Agg',
            PYTHONUNBUFFERED='1',
            PYTHONWARNINGS='ignore',
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(REPOSITORY),
                              os.environ.get('PYTHONPATH')])))

    def run(self) -> dict[str, dict]:
        """Run what is not done.

        Returns:
            For each step ``seconds`` and ``metrics``.

        Raises:
            StepFailed: A command ended with an error; the others were stopped.
        """
        try:
            while len(self.records) < len(self.steps):
                self._start_what_is_ready()
                self._collect()
                self._show()
                if self.running:
                    time.sleep(.2)
        finally:
            self._stop()
            self._erase()
        return self.records

    def _start_what_is_ready(self) -> None:
        busy = {job.step.name for job in self.running}
        for step in self.steps.values():
            if len(self.running) >= self.jobs:
                return
            if step.name in self.records or step.name in busy or \
                    not all(name in self.records for name in step.needs):
                continue
            key = step_key(step, self.steps)
            record = None if self.fresh else read_record(step, self.root)
            if record is not None and record['key'] == key:
                self.records[step.name] = record
                self.reused.append(step.name)
                continue
            folder = self.root / step.name
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            with (folder / LOG).open('wb') as log:
                process = subprocess.Popen([sys.executable, *step.command],
                                           stdin=subprocess.DEVNULL,
                                           stdout=log,
                                           stderr=subprocess.STDOUT,
                                           env=self._env,
                                           cwd=REPOSITORY)
            self.running.append(
                Running(step, process, time.monotonic(), key))

    def _collect(self) -> None:
        for job in list(self.running):
            code = job.process.poll()
            if code is None:
                continue
            self.running.remove(job)
            folder = self.root / job.step.name
            if code != 0 or not job.step.output.is_file():
                lines = (folder / LOG).read_text(
                    errors='replace').splitlines()[-15:]
                raise StepFailed('\n'.join([
                    f'step {job.step.name} failed with exit code {code}:',
                    '  python ' + shlex.join(job.step.command),
                    f'The end of {folder / LOG}:',
                    *(f'  | {line}' for line in lines)
                ]))
            record: dict[str, Any] = dict(
                key=job.key,
                output=file_digest(job.step.output),
                seconds=round(time.monotonic() - job.start, 1),
                metrics=last_metrics(folder))
            write_json(folder / RECORD, record)
            self.records[job.step.name] = record
            self._say(f'{job.step.name:20} {record["seconds"]:6.0f} s   '
                      f'{describe(record["metrics"])}')

    def _stop(self) -> None:
        for job in self.running:
            job.process.terminate()
        for job in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(5)
            job.process.kill()
            job.process.wait()

    def _show(self) -> None:
        if not sys.stdout.isatty():
            return
        now = time.monotonic()
        parts = [
            f'{job.step.name} {progress(job.step, self.root)} '
            f'{clock(now - job.start)}' for job in self.running
        ]
        line = (f'[{clock(now - self.start)}, {len(self.records)} of '
                f'{len(self.steps)} steps done] ' + ' | '.join(parts))
        width = shutil.get_terminal_size().columns - 1
        self._erase()
        self._shown = line[:width]
        print(self._shown, end='', flush=True)

    def _say(self, line: str) -> None:
        self._erase()
        print(line, flush=True)

    def _erase(self) -> None:
        if self._shown:
            print('\r' + ' ' * len(self._shown) + '\r', end='', flush=True)
            self._shown = ''


def progress(step: Step, root: Path) -> str:
    """How far a training is, from its log."""
    try:
        with (root / step.name / LOG).open('rb') as log:
            log.seek(max(0, os.path.getsize(log.name) - 4096))
            tail = log.read().decode(errors='replace')
    except OSError:
        return ''
    if found := PROGRESS[0].findall(tail):
        epoch, done, length = map(int, found[-1])
        return f'{(epoch - 1 + done / length) / step.epochs:4.0%}'
    if found := PROGRESS[1].findall(tail):
        done, length = map(int, found[-1])
        return f'{done / length:4.0%}'
    return 'starts'


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def describe(metrics: dict[str, float]) -> str:
    """A step's result in a few words."""
    if 'accuracy/top1' in metrics:
        return f'accuracy {metrics["accuracy/top1"]:.1f} %'
    if 'coco/bbox_mAP' in metrics:
        return (f'box AP {100 * metrics["coco/bbox_mAP"]:.1f} %, '
                f'mask AP {100 * metrics["coco/segm_mAP"]:.1f} %')
    if 'mIoU' in metrics:
        return f'mIoU {metrics["mIoU"]:.1f} %'
    return ''


# ------------------------------------------------------------- what came out


def summarize(records: dict[str, dict], seed: int, iterations: int) -> dict:
    """The content of summary.json; results are fractions of 1."""

    def value(step: str, key: str) -> float:
        number = records[step]['metrics'][key]
        return round(number if key.startswith('coco') else number / 100, 5)

    return dict(
        teachers={
            name: value(f'teacher_{name}', 'accuracy/top1')
            for name in TEACHERS
        },
        student={
            name: value(f'student_{name}', 'accuracy/top1')
            for name in ('alone', 'aver', 'mtkd_rl')
        },
        detector={
            name: value(f'mask_rcnn_{name}', 'coco/bbox_mAP')
            for name in ('plain', 'mtkd_rl')
        },
        segmentor={
            name: value(f'pspnet_{name}', 'mIoU')
            for name in ('plain', 'mtkd_rl')
        },
        seconds={name: record['seconds'] for name, record in records.items()},
        seed=seed,
        iterations=iterations)


def table(summary: dict, records: dict[str, dict]) -> str:
    """The results, one line a network."""
    seconds = summary['seconds']
    rows = [('', 'accuracy', 'seconds')]
    for name, accuracy in summary['teachers'].items():
        note = ', half its labels wrong' if name == CORRUPTED else ''
        rows.append((f'teacher {name}{note}', f'{accuracy:.1%}',
                     f'{seconds["teacher_" + name]:.0f}'))
    for name, title in (('alone', 'alone'),
                        ('aver', 'with AVER (equal weights)'),
                        ('mtkd_rl', "with MTKD-RL (the agent's weights)")):
        rows.append(
            (f'student {title}', f'{summary["student"][name]:.1%}',
             f'{seconds["student_" + name]:.0f}'))
    rows.append(('', 'box / mask AP', ''))
    backbones = (('plain', 'the student alone'),
                 ('mtkd_rl', 'the MTKD-RL student'))
    for name, title in backbones:
        metrics = records[f'mask_rcnn_{name}']['metrics']
        rows.append((f'Mask R-CNN from {title}',
                     f'{metrics["coco/bbox_mAP"]:.1%} / '
                     f'{metrics["coco/segm_mAP"]:.1%}',
                     f'{seconds["mask_rcnn_" + name]:.0f}'))
    rows.append(('', 'mIoU', ''))
    for name, title in backbones:
        rows.append((f'PSPNet from {title}',
                     f'{summary["segmentor"][name]:.1%}',
                     f'{seconds["pspnet_" + name]:.0f}'))
    rest = sum(s for n, s in seconds.items()
               if n.startswith(('scenes', 'export')))
    rows.append(('scenes rendered, backbones exported', '', f'{rest:.0f}'))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    rule = '-' * (sum(widths) + 4)
    lines = [rule]
    for row in rows:
        if not row[0]:
            lines += [rule] if len(lines) > 1 else []
        lines.append(f'{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  '
                     f'{row[2]:>{widths[2]}}')
    return '\n'.join([*lines, rule])


def explain(summary: dict, weights: dict | None, images: int) -> str:
    """What the numbers say, and what they do not.

    Args:
        summary: Of :func:`summarize`.
        weights: The weights' record over training, see
            :class:`mmkd_rl.visualization.WeightRecord`.
        images: Number of test images.
    """
    teachers, student = summary['teachers'], summary['student']
    good = {k: v for k, v in teachers.items() if k != CORRUPTED}
    best = max(good.values())
    alone = student['alone']
    chance = 200 * math.sqrt(2 * alone * (1 - alone) / images)

    def versus(new: float, old: float) -> tuple[str, bool]:
        """How they compare, and whether chance could have done it."""
        points = 100 * (new - old)
        text = f'{abs(points):.1f} points ' + (
            'above' if points >= 0 else 'below')
        if abs(points) < .05:
            text = 'level with'
        return text, abs(points) < chance

    lines = []
    corrupted = teachers[CORRUPTED]
    text, _ = versus(corrupted, min(good.values()))
    lines.append(
        f'Teachers: {", ".join(good)} learned from true labels. {CORRUPTED} '
        f'learned from labels of which half were wrong, and is {text} the '
        'weaker of them.')
    text, _ = versus(alone, best)
    lines.append(f'Alone the student is {text} the best teacher.')
    for name, title in (('aver', 'AVER'), ('mtkd_rl', 'MTKD-RL')):
        text, small = versus(student[name], alone)
        lines.append(f'With {title} it is {text} itself alone'
                     f'{", which can be chance" if small else ""}.')
    text, small = versus(student['mtkd_rl'], student['aver'])
    lines.append(f'MTKD-RL is {text} AVER'
                 f'{", which can be chance" if small else ""}.')
    if weights and weights['logit']:
        for kind in ('logit', 'feature'):
            share = dict(
                zip(weights['teachers'], weights[kind][-1], strict=True))
            equal = sum(share.values()) / len(share)
            listed = ', '.join(f'{k} {v:.2f}' for k, v in share.items())
            lines.append(
                f'At the end the mean {kind} weights are {listed}: the '
                f'corrupted teacher gets {share[CORRUPTED] / equal - 1:+.0%} '
                'compared with equal weights.')
    for key, title, unit in (('detector', 'The detector', 'box AP'),
                             ('segmentor', 'The segmentor', 'mIoU')):
        text, _ = versus(summary[key]['mtkd_rl'], summary[key]['plain'])
        lines.append(f'{title} that starts from the MTKD-RL student is {text} '
                     f'the one from the student alone ({unit}).')
    lines.append(
        f'This is one run of one seed ({summary["seed"]}). With {images:,} '
        f'test images, two accuracies less than about {chance:.1f} points '
        'apart can differ by chance alone, and AP and mIoU on 100 scenes vary '
        'more than that; other seeds: make demo DEMO_ARGS="--seed 1".')
    return '\n'.join(f'- {line}' for line in lines)


def draw_detections(root: Path, out: Path, scenes: int = 4) -> None:
    """Test scenes: what is there, and what each detector found.

    Args:
        root: The demo's folder.
        out: Picture to write.
        scenes: How many scenes, one a row.
    """
    import numpy as np
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from mmdet.apis import inference_detector, init_detector
    from pycocotools.coco import COCO

    data = root / 'scenes' / 'data'
    with contextlib.redirect_stdout(None):
        coco = COCO(str(data / 'annotations' / 'test.json'))
    images = coco.loadImgs(coco.getImgIds()[:scenes])
    paths = [str(data / 'images' / 'test' / i['file_name']) for i in images]
    columns: list[tuple[str, list]] = [('what is there', [[
        (a['category_id'], None, a['bbox'], coco.annToMask(a).astype(bool))
        for a in coco.imgToAnns[i['id']]
    ] for i in images])]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for which, title in (('plain', 'found from the student alone'),
                         ('mtkd_rl', 'found from the MTKD-RL student')):
        folder = root / f'mask_rcnn_{which}'
        model = init_detector(
            str(next(folder.glob('mask_rcnn_*.py'))),
            str(next(folder.glob('iter_*.pth'))), device=device)
        found = []
        for result in inference_detector(model, paths):
            p = result.pred_instances.cpu()
            p = p[p.scores > .5]
            xyxy = p.bboxes.numpy()
            boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], 1)
            found.append(
                list(zip(p.labels.tolist(), p.scores.tolist(), boxes,
                         p.masks.numpy(), strict=True)))
        columns.append((title, found))

    figure = Figure(
        figsize=(3.1 * len(columns), 3.1 * scenes + .7), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle('Digits in test scenes: boxes, masks, class and score '
                    '(above 50 %); all else is clutter')
    axes = figure.subplots(scenes, len(columns), squeeze=False)
    import cv2
    for row, path in enumerate(paths):
        image = cv2.imread(path)[..., ::-1]  # type: ignore[index]
        for column, (title, found) in enumerate(columns):
            _draw_scene(axes[row][column], image, found[row])
            if row == 0:
                axes[row][column].set_title(title, fontsize=11)
    figure.savefig(out, dpi=110)


def _draw_scene(axis, image, instances) -> None:
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.patches import Rectangle

    shade = (image * .7).astype(np.uint8)
    for label, score, box, mask in instances:
        colour = np.array(plt.get_cmap('tab10')(label)[:3])
        shade[mask] = .25 * image[mask] + .75 * 255 * colour
        axis.add_patch(
            Rectangle((box[0] - .5, box[1] - .5), box[2], box[3], fill=False,
                      edgecolor=colour, linewidth=1.5))
        text = str(label) if score is None else f'{label}  {score:.0%}'
        axis.text(box[0], box[1] - 2, text, fontsize=8, color='white',
                  bbox=dict(facecolor=colour, edgecolor='none', pad=1,
                            alpha=.9))
    if not instances:
        axis.text(64, 64, 'nothing found', color='white', ha='center')
    axis.imshow(shade, interpolation='nearest')
    axis.set_xticks([])
    axis.set_yticks([])


# --------------------------------------------------------------------- main


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let one demo at a time work in a folder.

    Raises:
        BlockingIOError: Another one does.
    """
    with (root / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def run(args: argparse.Namespace) -> None:
    """All of it."""
    root = args.work_dir
    cores = len(os.sched_getaffinity(0))
    jobs = args.jobs or min(2, cores)
    start = time.monotonic()
    steps = plan(root, args.seed, args.tiny)
    print(f'{len(steps)} steps, {jobs} at a time; logs and results: {root}/')
    conductor = Conductor(steps, root, jobs, max(1, cores // jobs), args.fresh)
    records = conductor.run()
    if conductor.reused:
        print(f'{len(conductor.reused)} of {len(steps)} steps were done '
              'before with the same config and inputs, and are reused '
              '(--fresh runs them again).')
    records = {step.name: records[step.name] for step in steps}

    student = conductor.steps['student_mtkd_rl']
    log = (root / student.name / LOG).read_text(errors='replace')
    epochs, _, length = PROGRESS[0].findall(log)[-1]
    summary = summarize(records, args.seed, int(epochs) * int(length))
    write_json(root / 'summary.json', summary)
    weights_file = root / student.name / 'teacher_weights.json'
    weights = json.loads(weights_file.read_text()) \
        if weights_file.is_file() else None

    pictures = []
    for name in ('teacher_weights.png', 'sample_weights.png'):
        if (root / student.name / name).is_file():
            shutil.copyfile(root / student.name / name, root / name)
            pictures.append(root / name)
    detections = root / 'detections.png'
    if len(conductor.reused) < len(steps) or not detections.is_file():
        # MMDetection's imports and loaders print what helps nobody here.
        with (root / 'pictures.txt').open('w') as log, \
                contextlib.redirect_stdout(log), \
                contextlib.redirect_stderr(log):
            draw_detections(root, detections)
    pictures.append(detections)

    print()
    print(table(summary, records))
    print(explain(summary, weights, 100 if args.tiny else 4 * 599))
    print(f'\n{root / "summary.json"}; pictures: '
          f'{", ".join(map(str, pictures))}')
    print(f'This took {clock(time.monotonic() - start)} (min:s).')


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, 1 for a failed step, 2 for wrong input."""
    args = parse_args(argv)
    args.work_dir = Path(os.path.relpath(args.work_dir, REPOSITORY))
    os.chdir(REPOSITORY)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    # Children must not outlive a demo that is told to stop.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with only_one(args.work_dir):
            run(args)
    except StepFailed as error:
        print(f'\ndemo: {error}', file=sys.stderr)
        return 1
    except BlockingIOError:
        print(f'demo: another demo is running in {args.work_dir}',
              file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print('\ndemo: interrupted; run it again to go on with what is '
              'missing', file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
