from .flow import FlowRecord, plot_flow
from .weights import WeightRecord, draw_samples, plot_weights

__all__ = [
    'FlowRecord', 'WeightRecord', 'draw_samples', 'plot_flow', 'plot_weights'
]
