"""Optimizers: DiGA's for DeepLab-V2, and those of the other networks and methods."""

from typing import Any

from ml_collections import ConfigDict

from diga_jax.configs.fields import fields


def sgd(**changes: Any) -> ConfigDict:
  """SGD with polynomial decay. Patterns are regular expressions on '/'-joined parameter names."""
  return fields(
    {
      # As in PyTorch: 'sgd' | 'adam' (weight decay added to the gradient) | 'adamw' (to the step).
      'kind': 'sgd',
      'learning_rate': 2.5e-4,  # after the warm-up, before the decay
      'momentum': 0.9,  # 'sgd'
      'betas': (0.9, 0.999),  # 'adam' and 'adamw'
      'weight_decay': 5e-4,  # factor of the parameter; where it is added: see kind
      'undecayed_pattern': '',  # parameters without weight decay
      'decay': 'poly',  # 'poly' | 'cosine'
      'power': 0.9,  # 'poly': exponent
      'final_lr_ratio': 0.001,  # 'cosine': the share of the rate that is left at the end
      # 'cosine': whether the head ends at the body's last rate instead of its own share. Published
      # quirk of HIAST: it does.
      'common_final_lr': False,
      'warmup': 0,  # steps of linear warm-up from 0
      'decay_steps': 0,  # steps over which the rate decays; 0 = the steps of the stage
      'head_lr_multiplier': 10.0,  # of the rate, for parameters that match head_pattern
      'head_pattern': '^final',  # the parameters of the head; '' = one rate for all
      # Patterns of parameters that stay as they are. Published: BatchNorm's scale and bias keep
      # their pretrained values.
      'frozen': (r'(bn\d|layer0\.1|downsample\.1)(/scale|/bias)$',),
      # (pattern, steps of these parameters for one of the others). Published quirk: the backbone's
      # parameters are collected once for each module around them, and SGD steps every entry of the
      # list: 2 to 4 steps of the backbone for one of the head.
      'repeats': ((r'^layer0', 2), (r'downsample', 4), (r'^layer[1-4]', 3)),
      # Whether the later of these steps have the momentum of the first in the run's first step too,
      # as in PyTorch 1.7.1, which DiGA pins. False: as in newer versions.
      'first_step_momentum': True,
    },
    changes,
  )


def uniform(**changes: Any) -> ConfigDict:
  """One rate for all parameters, of which none is frozen."""
  whole = {'head_lr_multiplier': 1.0, 'head_pattern': '', 'frozen': (), 'repeats': ()}
  return sgd(**whole | changes)


def hiast(learning_rate: float) -> ConfigDict:
  """Adam and a cosine, for the names of `hiast_resnet101`."""
  return sgd(
    kind='adam',
    learning_rate=learning_rate,
    decay='cosine',
    common_final_lr=True,
    head_pattern='^aspp',
    frozen=(r'(bn\d|downsample\.1)(/scale|/bias)$',),
    repeats=(),
  )


def transformer(**changes: Any) -> ConfigDict:
  """AdamW for Mix Transformers, with DAFormer's values (arXiv 2111.14887)."""
  values = {
    'kind': 'adamw',
    'learning_rate': 6e-5,
    'weight_decay': 0.01,
    'undecayed_pattern': '/(scale|bias)$',  # norms and biases
    'power': 1.0,
    'warmup': 1500,
    'head_pattern': '^decode_head',
    'frozen': (),
    'repeats': (),
  }
  return sgd(**values | changes)
