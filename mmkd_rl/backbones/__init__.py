"""Networks for 32x32 images, and what they share."""

from .cifar_resnet import CifarResNet
from .cifar_wrn import CifarWideResNet

__all__ = ['CifarResNet', 'CifarWideResNet']
