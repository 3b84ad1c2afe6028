"""Networks for small images."""

from .cifar_densenet import CifarDenseNet
from .cifar_mobilenetv2 import CifarMobileNetV2
from .cifar_regnet import CifarRegNet
from .cifar_resnet import CifarResNet
from .cifar_shufflenetv2 import CifarShuffleNetV2
from .cifar_vgg import CifarVGG
from .cifar_wrn import CifarWideResNet
from .mlp import MLP
from .plain_conv import PlainConvNet

__all__ = [
    'MLP', 'CifarDenseNet', 'CifarMobileNetV2', 'CifarRegNet', 'CifarResNet',
    'CifarShuffleNetV2', 'CifarVGG', 'CifarWideResNet', 'PlainConvNet'
]
