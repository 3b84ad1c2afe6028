from .flow import FlowRecord, plot_flow
from .scenes import ClassMap, Instances, class_colours, draw_scenes
from .weights import WeightRecord, draw_samples, plot_weights

__all__ = [
    'ClassMap', 'FlowRecord', 'Instances', 'WeightRecord', 'class_colours',
    'draw_samples', 'draw_scenes', 'plot_flow', 'plot_weights'
]
