"""Command-line options of :func:`distill`."""

from __future__ import annotations

import argparse

from mmengine.config import Config

from mmkd_rl.options import parse_options
from mmkd_rl.recipes.making import distill
from mmkd_rl.recipes.reading import parse_term
from mmkd_rl.utils.configs import load_config


class _Once(argparse.Action):
    """An option that is refused when given twice; argparse would forget the
    first value."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = getattr(namespace, self.dest)
        if given is not None:
            parser.error(f'{option_string} is given twice: {given} and '
                         f'{values}')
        setattr(namespace, self.dest, values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a command-line tool calls
    :func:`distill`."""
    parser.add_argument(
        '--distill',
        action=_Once,
        metavar='STRATEGY',
        help='distil teachers into the model of a plain config: mtkd_rl, '
        'aver, ca_mkd, knowledge_flow, ..., a file like those of '
        'configs/_base_/strategies, or mtkd_rl+knowledge_flow')
    parser.add_argument(
        '--teacher',
        action='append',
        default=[],
        metavar='NAME=CONFIG:CHECKPOINT',
        help='a teacher for --distill, any number of them; CHECKPOINT is a '
        'file, the work dir of a run, a URL, or untrained')
    parser.add_argument(
        '--pool',
        action=_Once,
        metavar='FILE',
        help='a config with teachers=[...] for --distill, or a name from '
        'configs/_base_/pools; FILE:2 takes only the first two teachers, '
        'FILE:r50,r101 those with these names')
    parser.add_argument(
        '--term',
        action='append',
        nargs='+',
        metavar=('TYPE', 'OPTION=VALUE'),
        help="a distillation term for --distill in place of the strategy's, "
        'such as: --term KDLoss temperature=2 --term FitNetLoss')
    parser.add_argument(
        '--task',
        action=_Once,
        metavar='TYPE',
        help='task adapter for --distill in place of the one that fits the '
        'models, such as FeatureTask: distil features alone')
    parser.add_argument(
        '--stored',
        nargs='+',
        metavar=('FOLDER', 'OPTION=VALUE'),
        help="keep the teachers' outputs in this folder and read them again, "
        'in later epochs and runs; options: views=8 (augmented views of each '
        'image), features=float16, top_k=50, budget=2GB, repeats=1')


def read_config(args: argparse.Namespace) -> Config:
    """Read the config of a tool's arguments; with ``--distill`` call
    :func:`distill` on it.

    Args:
        args: Arguments with ``config`` and those of :func:`add_arguments`.

    Raises:
        ValueError: ``--teacher``, ``--pool``, ``--term`` or ``--task``
            without ``--distill``; see also :func:`distill`.
        FileNotFoundError: No such config or pool.
    """
    if args.distill is None:
        for name in ('teacher', 'pool', 'term', 'task', 'stored'):
            if getattr(args, name):
                raise ValueError(f'--{name} has an effect only together with '
                                 '--distill STRATEGY, which is missing')
        return load_config(args.config)
    options: dict = {} if args.task is None else dict(
        task=dict(type=args.task))
    if args.stored is not None:
        folder, *rest = args.stored
        options['stored'] = dict(folder=folder, **parse_options(
            rest, f'--stored {folder}', f'{folder} views=8'))
    return distill(
        args.config, args.distill, args.teacher, pool=args.pool,
        terms=args.term and [parse_term(words) for words in args.term],
        **options)
