from .torchvision import TorchVisionClassifier

__all__ = ['TorchVisionClassifier']
