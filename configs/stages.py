"""The kinds of stages, with the values that DiGA and HIAST published for GTA5 -> Cityscapes."""

from typing import Any

from ml_collections import ConfigDict

from diga_jax.configs import optimizers
from diga_jax.configs.fields import fields


def photometric_view(**changes: Any) -> ConfigDict:
  """The photometric view of an image (docs/diga.md section 5)."""
  return fields(
    {
      'jitter': 0.5,  # probability of brightness, contrast, saturation and hue, in any order
      'grayscale': 0.3,  # probability
      'blur': 0.8,  # probability
      'sharpness': 0.3,  # probability
      'beta': 0.4,  # weight of the changed image against the image as it is
    },
    changes,
  )


def batch(**changes: Any) -> ConfigDict:
  """What a batch is made of, per domain: resized images, then images at full size."""
  return fields(
    {
      'low_rows': 1,  # images that are resized to the set's low_size before they are cropped
      'full_rows': 2,  # images that are cropped as they are
      'source': 'source',  # the labelled set, by its name in data.sets
      'target': 'target',  # the set to adapt to, by its name in data.sets
      # 'sized' (own U(0.7, 1) in width and height, then crop) | 'plain' | 'zoom' (a window of the
      # crop's shape and of a height drawn from the set's zoom_heights, resized to the crop).
      'source_crop': 'sized',
      'target_crop': 'plain',  # 'sized' | 'plain' | 'zoom', as source_crop
      # Whether a source crop with hardly any classes is drawn again, as published for GTA5 and
      # SYNTHIA.
      'redraw': True,
    },
    changes,
  )


def copy_paste(**changes: Any) -> ConfigDict:
  """HIAST's hard-class copy-paste among target images and their pseudo-labels."""
  return fields(
    {
      'hard_classes': 14,  # how many: those with the least confident pseudo-labels
      'excluded_classes': (),  # classes that are never hard, by train id
      # Donors at most. Published quirk: every hard class counts as pasted after the first donor, so
      # that there is never a second; the paper describes up to 3.
      'max_donors': 1,
      'leave_out': 0.1,  # share of a class's images, those with the fewest pixels, that lend none
    },
    changes,
  )


def translator_stage(**changes: Any) -> ConfigDict:
  """Trains the translator between the domains (translator.kind = 'network')."""
  return fields(
    {
      'kind': 'translator',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'steps': 50_000,  # of training
      'batch': batch(low_rows=1, full_rows=1, source_crop='plain'),  # see `stages.batch`
      # See `optimizers.sgd`.
      'optimizer': optimizers.uniform(
        kind='adam', learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=0.0
      ),
    },
    changes,
  )


def warmup_stage(**changes: Any) -> ConfigDict:
  """The warm-up: trains on labelled source images."""
  return fields(
    {
      'kind': 'warmup',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'start': '',  # the stage whose network to start from; '' = weights
      'weights': '',  # without start: the file to start from; '' = model.weights
      'translator': 'translator',  # the translator stage to use (translator.kind = 'network')
      'steps': 80_000,  # of training
      'method': 'distill',  # 'distill' | 'source_only' (the loss on the source alone)
      'mixing': 'class',  # 'class' (cross-domain mixture) | 'none' (the photometric view alone)
      'distillation': 0.5,  # lambda: weight of the distillation
      'reverse': 0.5,  # weight of teacher(mixed) -> student(plain) against the other direction
      'auxiliary': 0.1,  # weight of the auxiliary output's losses, where a network has one
      'ema_decay_max': 0.999,  # upper bound of the teacher's decay
      # 'cross_entropy' (divided by all pixels, as DiGA published it) | 'labelled_cross_entropy'
      # (by the labelled ones, as HIAST did) | 'ohem' (hard pixels).
      'loss': 'cross_entropy',
      'ohem_threshold': 0.7,  # 'ohem': pixels whose class has less probability are hard
      'ohem_min_kept': 100_000,  # 'ohem': at least this many pixels of a batch count as hard
      # Whether the running statistics are also moved by target images, a published quirk. Off for
      # domain generalization, which must not see the target.
      'target_statistics': True,
      'view': photometric_view(),  # see `stages.photometric_view`
      'batch': batch(),  # see `stages.batch`
      'optimizer': optimizers.sgd(),  # see `optimizers.sgd`
    },
    changes,
  )


def adversarial_stage(**changes: Any) -> ConfigDict:
  """HIAST's warm-up: a discriminator tells the source's predictions from the target's.

  HIAST's recipe does not publish its warm-up: these are the defaults of its code.
  """
  return fields(
    {
      'kind': 'adversarial',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'start': '',  # the stage whose network to start from; '' = weights
      'weights': '',  # without start: the file to start from; '' = model.weights
      'steps': 10_000,  # of training
      'adversarial_weight': 0.05,  # weight of the loss that fools the discriminator
      'entropy_weight': 3.0,  # weight of the target predictions' entropy
      'ema_decay_max': 0.999,  # upper bound of the teacher's decay
      'loss': 'labelled_cross_entropy',  # of the source: as in `stages.warmup_stage`
      'ohem_threshold': 0.7,  # 'ohem': pixels whose class has less probability are hard
      'ohem_min_kept': 100_000,  # 'ohem': at least this many pixels of a batch count as hard
      'discriminator_width': 64,  # channels of the discriminator's first layer
      # Of the discriminator: see `optimizers.sgd`.
      'discriminator_optimizer': optimizers.uniform(
        kind='adam', learning_rate=1e-4, weight_decay=0.0, decay='cosine'
      ),
      # See `stages.batch`.
      'batch': batch(low_rows=0, full_rows=4, source_crop='zoom', target_crop='zoom', redraw=False),
      'optimizer': optimizers.hiast(1e-4),  # see `optimizers.sgd`
    },
    changes,
  )


def label_stage(start: str, **changes: Any) -> ConfigDict:
  """A label pass: pseudo-labels and class centroids by the network of a stage."""
  return fields(
    {
      'kind': 'label',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'start': start,  # the stage whose network labels the target; '' = weights
      'weights': '',  # without start: a file with the head as well; '' = model.weights
      'network': 'student',  # 'student' | 'teacher'
      'target': 'target',  # the set to label, by its name in data.sets
      'scales': (1.0, 0.5),  # of the image; the largest logit over the scales counts
      'image_size': (),  # (height, width) to which images are resized first; () = as they are
      # How: 'bicubic' (with antialiasing) | 'bilinear' (without, and labels back by rounding
      # positions down; published quirk of HIAST).
      'resizing': 'bicubic',
      # Which labels are kept: 'none' (all of them) | 'constant' (one confidence) | 'cbst' (the most
      # confident share of each class) | 'ias' (instance adaptive: thresholds that follow the
      # images). DiGA's 'consensus' is set in the self-training, with which it changes; both can be
      # combined.
      'selector': 'none',
      'threshold': 0.9,  # 'constant': the confidence; 'ias': where every class starts
      'share': 0.2,  # 'cbst': share of each class's pixels that is kept
      'alpha': 0.5,  # 'ias': share of the pixels to keep where the threshold is 1
      'beta': 0.9,  # 'ias': share of the old threshold in the new one
      'gamma': 8.0,  # 'ias': how much less is kept of a class with a low threshold
      'selector_batch': 1,  # images between two moves of the thresholds; published for HIAST: 2
      # 'target' (predictions alone) | 'source' (mixed with the translation, pixels where the
      # prediction is right) | 'earlier' (those of an earlier label stage) | 'none' (for a
      # self-training without consensus). Published: round 2 keeps those of round 1.
      'centroids_from': 'target',
      'earlier': '',  # centroids from 'earlier': the label stage that made them
      # Centroids from 'source' or 'target': the set, by its name in data.sets; '' = 'source' or the
      # set that is labelled.
      'centroid_set': '',
      # Whether they are made of random crops, of each image one at the set's low and one at its
      # full size, drawn anew in every pass, and not of whole images at the low size. Published for
      # those from 'source' and in semi-supervised learning.
      'centroid_crops': False,
      'translator': 'translator',  # centroids from 'source': the translator stage to use
      # Passes over the images. Published quirk: five, of which those after the first change nothing
      # of whole images but the counts, until these have passed `cap`.
      'passes': 5,
      'cap': 3000,  # images of a class from which on its centroid is a moving average
    },
    changes,
  )


def self_training_stage(start: str, labels: str, **changes: Any) -> ConfigDict:
  """DiGA's self-training: source images with labels, target images with pseudo-labels."""
  return fields(
    {
      'kind': 'self_training',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'start': start,  # the stage whose network to start from; '' = weights
      'weights': '',  # without start: the file to start from; '' = model.weights
      'labels': labels,  # the label stage with the pseudo-labels and centroids
      'translator': 'translator',  # the translator stage to use (translator.kind = 'network')
      'steps': 80_000,  # of training
      # 'consensus' (bilateral, no threshold) | 'none' (keep all labels that were written).
      'selector': 'consensus',
      'rank': 1,  # 'consensus': among how many nearest centroids the label's must be; DiGA: 1
      'mixing': 'class',  # of the source's second view: 'class' | 'none', as in the warm-up
      # What is pasted over target images: 'class' (half of a source image's classes) |
      # 'copy_paste' (hard classes of other target images) | 'none'.
      'target_mixing': 'class',
      'copy_paste': copy_paste(),  # see `stages.copy_paste`
      'distillation': 0.25,  # lambda: weight of the distillation
      'reverse': 0.5,  # weight of teacher(mixed) -> student(plain) against the other direction
      'auxiliary': 0.1,  # weight of the auxiliary output's losses, where a network has one
      'ema_decay_max': 0.999,  # upper bound of the teacher's decay
      # 'cross_entropy' | 'labelled_cross_entropy' | 'ohem', as in the warm-up.
      'loss': 'cross_entropy',
      'target_loss': 'cross_entropy',  # of the mixed target images: as loss
      'ohem_threshold': 0.7,  # 'ohem': pixels whose class has less probability are hard
      'ohem_min_kept': 100_000,  # 'ohem': at least this many pixels of a batch count as hard
      'centroid_momentum': 1e-4,  # step of a centroid towards the mean of each image
      'view': photometric_view(beta=0.3),  # see `stages.photometric_view`
      'batch': batch(low_rows=2, full_rows=1, target_crop='sized'),  # see `stages.batch`
      'optimizer': optimizers.sgd(),  # see `optimizers.sgd`
    },
    changes,
  )


def hiast_stage(start: str, labels: str, **changes: Any) -> ConfigDict:
  """HIAST's self-training: target images alone, with a regularization for each region."""
  return fields(
    {
      'kind': 'hiast',  # fixed: what kind of stage this is
      'data_stream': '',  # the stage whose draws this one shares, in a comparison; '' = its own
      'start': start,  # the stage whose network to start from; '' = weights
      'weights': '',  # without start: the file to start from; '' = model.weights
      'labels': labels,  # the label stage with the pseudo-labels
      'steps': 8_000,  # of training
      # 'consensus' | 'none', as in DiGA's self-training; the label stage has selected already.
      'selector': 'none',
      'rank': 1,  # 'consensus': among how many nearest centroids the label's must be
      'target_mixing': 'copy_paste',  # as in DiGA's self-training; 'class' takes source images
      'copy_paste': copy_paste(),  # see `stages.copy_paste`
      'strong': 3,  # colour operations chosen for the strong view; 0 = none
      'ema_decay': 0.999,  # the teacher's decay
      # 'cross_entropy' | 'labelled_cross_entropy' | 'ohem', as in the warm-up.
      'loss': 'labelled_cross_entropy',
      'ohem_threshold': 0.7,  # 'ohem': pixels whose class has less probability are hard
      'ohem_min_kept': 100_000,  # 'ohem': at least this many pixels of a batch count as hard
      'smoothing': 0.1,  # weight of the uniform target on labelled pixels
      'sharpening': 1.0,  # weight of the entropy on pixels without a label
      'consistency': 0.5,  # weight of the teacher's prediction on pixels without a label
      'centroid_momentum': 1e-4,  # step of a centroid towards the mean of each image
      # See `stages.batch`. Published: 6 in all, on however many devices.
      'batch': batch(low_rows=0, full_rows=6, source_crop='zoom', target_crop='zoom', redraw=False),
      'optimizer': optimizers.hiast(3e-6),  # see `optimizers.sgd`
    },
    changes,
  )


def hiast_label_stage(start: str, **changes: Any) -> ConfigDict:
  """HIAST's label pass: the instance adaptive selector, one scale."""
  values = {
    'scales': (1.0,),
    'image_size': (768, 1536),
    'resizing': 'bilinear',
    'selector': 'ias',
    'selector_batch': 2,
    'centroids_from': 'none',
  }
  return label_stage(start, **values | changes)
