"""Plot the teachers' weights over the training of a run."""

from __future__ import annotations

from mmkd_rl.visualization import WeightRecord, plot_weights
from mmkd_rl.visualization.command import draw_record


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    draw_record(
        __doc__,
        WeightRecord,
        plot_weights,
        file='teacher_weights.json',
        hook='WeightVisualizationHook',
        title='Trust in each teacher over training',
        argv=argv)


if __name__ == '__main__':
    main()
