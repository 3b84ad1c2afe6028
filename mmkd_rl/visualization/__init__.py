from .weights import WeightRecord, draw_samples, plot_weights

__all__ = ['WeightRecord', 'draw_samples', 'plot_weights']
