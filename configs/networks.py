"""Options of the networks: what `config.model.options` holds for each `config.model.name`."""

from typing import Any

from ml_collections import ConfigDict

from diga_jax.configs.fields import fields


def deeplab(**changes: Any) -> ConfigDict:
  """deeplab_resnet101."""
  return fields(
    {
      'blocks': (3, 4, 23, 3),  # residual blocks of each stage of the ResNet
      'width': 64,  # channels of its first stage
      'feature': 256,  # channels before the last layer
      'dropout': 0.1,  # probability
      # 'batch' normalises with batch statistics in training and moves the running ones, as
      # published | 'running' always uses the pretrained ones.
      'batch_norm': 'batch',
    },
    changes,
  )


def hiast(**changes: Any) -> ConfigDict:
  """hiast_resnet101."""
  return fields(
    {
      'blocks': (3, 4, 23, 3),  # residual blocks of each stage of the ResNet
      'width': 64,  # channels of its first stage
      'batch_norm': 'batch',  # 'batch' | 'running', as in deeplab
    },
    changes,
  )


def hrnet(**changes: Any) -> ConfigDict:
  """hrnet_w48_ocr."""
  return fields(
    {
      # What the network is fed: 'given' (DiGA's pixel values, BGR) | 'rgb' (the same with the
      # channels turned) | 'imagenet' (what ImageNet weights are trained on).
      'pixels': 'rgb',
      'dropout': 0.05,  # probability
      'batch_norm': 'batch',  # 'batch' | 'running', as in deeplab
    },
    changes,
  )


def mix_transformer(**changes: Any) -> ConfigDict:
  """mit_bN_segformer and mit_bN_daformer."""
  return fields(
    {
      'pixels': 'imagenet',  # 'given' | 'rgb' | 'imagenet', as in hrnet
      'dropout': 0.1,  # probability
      'drop_path': 0.1,  # probability that an example skips the last block; earlier blocks less
      'batch_norm': 'batch',  # 'batch' | 'running', as in deeplab
    },
    changes,
  )


def lite0(**changes: Any) -> ConfigDict:
  """deeplab_efficientnet_lite0."""
  return fields(
    {
      'output_stride': 16,  # 16 | 8: image pixels to one of the feature map
      'feature': 256,  # channels before the last layer
      'dropout': 0.1,  # probability
      'batch_norm': 'running',  # 'batch' | 'running', as in deeplab: ImageNet's statistics stay
    },
    changes,
  )
