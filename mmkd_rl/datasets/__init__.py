"""Data sets that need no download, and what is done to labels."""

from .digits import DigitsDataset
from .permute_labels import PermuteLabels

__all__ = ['DigitsDataset', 'PermuteLabels']
