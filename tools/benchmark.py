"""Measure time and memory of a training step, and of the parts of the step.

For a distillation: the student's step without teachers, the teachers' forward
pass, the step with equal weights (AVER) and the step with the config's
strategy. The steps are timed in turns in one process, so that changes of the
machine's speed affect all of them alike. Times are medians over the turns.
Seconds depend on the machine; compare the ratios.

The floor is the sum of the student's step and the teachers' forward pass. A
strategy's step includes its share of the updates of the strategy's own
networks (MTKD-RL's agent, MMKD's meta steps). Peak memory is the sum of all
tensors that live between steps (weights, gradients, optimiser state, teachers,
the strategy's networks, and the samples that they learn from, at their
maximum) and of the highest memory that the step allocates.

With --strategies several strategies are compared with AVER, in one Markdown
table beside Table 6(c) of MTKD-RL's paper. A strategy has its default options,
or those of the config if it is the config's strategy.

If the model (or a distiller's student) has a KnowledgeFlowBackbone, the parts
are the plain model's step, the teachers' forward pass and all transforms Q.
They are compared with the step with Knowledge Flow, with and without the KL
term, and with the step after the teachers' withdrawal; see
tools/paper_tables/flow_cost.py.

With --stored iterations with full stores are compared with the student's own,
with reading of the images, see tools/paper_tables/stored_cost.py.

With --untrained only the config is needed: teachers have random weights, and
missing images are replaced by random images of the same size.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from pathlib import Path

# The profiler, which measures memory on a CPU, prints many messages.
os.environ.setdefault('KINETO_LOG_LEVEL', '5')

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

import mmkd_rl  # noqa: F401
from mmkd_rl.recipes import add_arguments, read_config, strategy_names
from mmkd_rl.recipes.making import image_size
from mmkd_rl.recipes.reading import read_strategy
from mmkd_rl.teachers.loading import load_model_config
from mmkd_rl.utils.cli import Options, clear_errors
from mmkd_rl.utils.configs import class_name, merge_options
from mmkd_rl.utils.patches import patch_mmengine
from needs import need
from paper_tables import distillation_cost, flow_cost, stored_cost
from paper_tables.runs import write_json

#: Below this number of timed turns a warning is printed: the medians vary.
FEW = 5
#: Training images of CIFAR-100 and ImageNet by number of classes, for the
#: length of an epoch if the images are missing.
EPOCHS = {100: 50_000, 1000: 1_281_167}


def strategy(text: str) -> str:
    """Name of a strategy as recipes spell it (``_`` and ``-`` are the same).

    Raises:
        argparse.ArgumentTypeError: No such strategy, or one that does not
            weigh teachers.
    """
    names = {name.replace('-', '_'): name for name in strategy_names()}
    name = names.get(text.lower().replace('-', '_'), text)
    try:
        if 'weighting' in read_strategy(name):
            return name
    except (ValueError, FileNotFoundError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    raise argparse.ArgumentTypeError(f'{text!r} weighs no teachers')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help='config of a distillation, or a plain config with --distill')
    add_arguments(parser)
    parser.add_argument(
        '--iters', type=int, default=30, help='timed turns (%(default)s)')
    parser.add_argument(
        '--warmup', type=int, default=5,
        help='turns before the timed ones (%(default)s)')
    parser.add_argument(
        '--strategies',
        nargs='+',
        type=strategy,
        metavar='NAME',
        help='strategies to compare with AVER, named as for --distill')
    parser.add_argument(
        '--json', metavar='FILE', help='also write the results to this file')
    parser.add_argument(
        '--untrained',
        action='store_true',
        help='do not load checkpoints of teachers, and use random images if '
        'there are none: costs are the same')
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show where in the code an error was raised')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, default={})
    args = parser.parse_args()
    for name in ('iters', 'warmup'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be >= 1, got {getattr(args, name)}')
    if args.strategies and args.iters < FEW:
        print(f'note: --iters {args.iters}: medians of so few turns mean '
              'little', file=sys.stderr)
    return args


def main() -> int:
    """Measure, print the table and write the results."""
    args = parse_args()
    need('tabulate')
    patch_mmengine()
    with clear_errors(args.debug):
        return _run(args)
    return 0


def _run(args: argparse.Namespace) -> int:
    cfg = read_config(args)
    merge_options(cfg, args.cfg_options)
    kind = str(cfg.get('model', {}).get('type', 'nothing'))
    flows = bool(list(flow_cost.flow_configs(cfg.get('model'))))
    if not flows and class_name(kind) != 'MultiTeacherDistiller':
        raise ValueError(f'config {args.config!r} does not distil: its model '
                         f'is {kind!r}, not a MultiTeacherDistiller, and has '
                         'no KnowledgeFlowBackbone. Make a distillation of '
                         'it with --distill STRATEGY --teacher ...')
    if flows and args.strategies:
        raise ValueError(f'--strategies {" ".join(args.strategies)}: config '
                         f'{args.config!r} has a KnowledgeFlowBackbone; '
                         'strategies are compared without one')
    init_default_scope(cfg.get('default_scope', 'mmkd_rl'))
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if stored_cost.is_stored(cfg.model):
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        result = stored_cost.measure(cfg, args.warmup, args.iters)
        return _say(stored_cost.report(result), result, args.json)
    data, epoch = _batch(cfg, args.untrained)
    if args.untrained:
        flow_cost.untrained(cfg.model)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if flows:
        result = flow_cost.measure(cfg, data, device, args.warmup, args.iters)
        text = flow_cost.report(result)
    else:
        models = {name: distillation_cost.with_strategy(cfg.model, name)
                  for name in args.strategies if name != 'aver'
                  } if args.strategies else dict(strategy=cfg.model)
        result = distillation_cost.measure(
            cfg, models, data, epoch, device, args.warmup, args.iters)
        text = distillation_cost.report(result)
    return _say(text, result, args.json)


def _say(text: str, result: dict, path: str | None) -> int:
    print(text)
    if path is not None:
        write_json(Path(path), result)
    return 0


def _batch(cfg: Config, untrained: bool) -> tuple[dict, int]:
    """A training batch, and the number of batches in an epoch.

    Args:
        cfg: Config of the training.
        untrained: Use random images if the config's images are missing.

    Raises:
        FileNotFoundError: The images are missing, and random images are not
            allowed or not possible.
    """
    try:
        loader = Runner.build_dataloader(
            copy.deepcopy(cfg.train_dataloader), seed=0)
        return next(iter(loader)), len(loader)
    except FileNotFoundError as error:
        if not untrained:
            raise FileNotFoundError(
                f'{error}. The images are read as in training; to use random '
                'images instead, add --untrained') from error
        kind = _classifier(cfg)['type']
        if _classifier(cfg).get('head') is None:
            raise FileNotFoundError(
                f'{error}. --untrained takes random images for classifiers '
                f'only, and the model is a {kind}') from error
    classes = _num_classes(cfg)
    size = image_size(cfg) or (32 if classes == 100 else None)
    if size is None:
        raise ValueError('the training pipeline has no crop_size or scale, so '
                         'there is no size for random images')
    height, width = (size, size) if isinstance(size, int) else size
    batch = cfg.train_dataloader.batch_size
    print(f"note: no images in the config's folder: random ones, {height} "
          f'x {width}', file=sys.stderr)
    data = dict(
        inputs=list(torch.randint(256, (batch, 3, height, width),
                                  dtype=torch.uint8)),
        data_samples=[
            DataSample().set_gt_label(int(label))
            for label in torch.randint(classes, (batch, ))
        ])
    return data, max(1, EPOCHS.get(classes, 50_000) // batch)


def _classifier(cfg: Config) -> dict:
    return load_model_config(
        cfg.model.get('student', cfg.model), 'model', keep_flow=True)[0]


def _num_classes(cfg: Config) -> int:
    for part in (cfg.get('data_preprocessor'), _classifier(cfg).get('head')):
        if part and part.get('num_classes'):
            return int(part['num_classes'])
    return 1000


if __name__ == '__main__':
    sys.exit(main())
