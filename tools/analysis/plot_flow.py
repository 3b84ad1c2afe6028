"""Plot the weights p_w of student and teachers in Knowledge Flow."""

from __future__ import annotations

from mmkd_rl.visualization import FlowRecord, plot_flow
from mmkd_rl.visualization.command import draw_record
from mmkd_rl.visualization.flow import FILE_NAME, TITLE


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    draw_record(
        __doc__,
        FlowRecord,
        plot_flow,
        file=FILE_NAME,
        hook='FlowVisualizationHook',
        title=TITLE,
        argv=argv)


if __name__ == '__main__':
    main()
