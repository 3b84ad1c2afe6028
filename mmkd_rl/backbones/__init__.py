"""Networks for 32x32 images, and what they share."""

from .cifar_mobilenetv2 import CifarMobileNetV2
from .cifar_regnet import CifarRegNet
from .cifar_resnet import CifarResNet
from .cifar_shufflenetv2 import CifarShuffleNetV2
from .cifar_vgg import CifarVGG
from .cifar_wrn import CifarWideResNet

__all__ = [
    'CifarMobileNetV2', 'CifarRegNet', 'CifarResNet', 'CifarShuffleNetV2',
    'CifarVGG', 'CifarWideResNet'
]
