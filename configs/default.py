"""Every setting with its default: the published DiGA values for GTA5 -> Cityscapes.

An experiment is a short file that calls `get_config()` and changes what differs; the command line
changes single fields (`--config.stages.warmup.steps=100`). Sizes are (height, width) in pixels.
"""

from ml_collections import ConfigDict as D

from configs import datasets


def optimizer(**changes) -> D:
  """SGD with polynomial decay. Patterns are regular expressions on '/'-joined parameter names."""
  return D(
    {
      # As in PyTorch: 'sgd' | 'adam' (weight decay added to the gradient) | 'adamw' (to the step).
      'kind': 'sgd',
      'learning_rate': 2.5e-4,
      'momentum': 0.9,
      'betas': (0.9, 0.999),
      'weight_decay': 5e-4,
      'undecayed_pattern': '',  # parameters that are left alone by it
      'decay': 'poly',  # 'poly' | 'cosine'
      'power': 0.9,  # poly
      'final_lr_ratio': 0.001,  # cosine: the share of the rate that is left at the end
      'warmup': 0,  # steps of linear warm-up from 0
      'decay_steps': 0,  # steps over which the rate decays; 0 = the steps of the stage
      'head_lr_multiplier': 10.0,  # of the rate, for parameters that match head_pattern
      'head_pattern': '^final',
      # Published: BatchNorm's scale and bias stay at their pretrained values.
      'frozen': (r'(bn\d|layer0\.1|downsample\.1)(/scale|/bias)$',),
      # Published quirk: the backbone's parameters are collected once for each module around them,
      # and SGD steps every entry of the list: 2 to 4 steps of the backbone for one of the head.
      'repeats': ((r'^layer0', 2), (r'downsample', 4), (r'^layer[1-4]', 3)),
      **changes,
    }
  )


def photometric_view(**changes) -> D:
  """Probabilities of the photometric view's operations and its blend (docs/method.md section 5)."""
  view = {'jitter': 0.5, 'grayscale': 0.3, 'blur': 0.8, 'sharpness': 0.3, 'beta': 0.4}
  return D(view | changes)


def batch(**changes) -> D:
  """What a batch is made of, per domain: `low` resized images, then `full` ones."""
  return D(
    {
      'low_rows': 1,
      'full_rows': 2,
      'source': 'source',  # names in data.sets
      'target': 'target',
      # 'sized' (own U(0.7, 1) in width and height, then crop) | 'plain' | 'zoom' (a window of the
      # crop's shape and of a height drawn from the set's zoom_heights, resized to the crop).
      'source_crop': 'sized',
      'target_crop': 'plain',
      # Published for GTA5 / SYNTHIA: a source crop with hardly any classes is drawn again.
      'redraw': True,
      **changes,
    }
  )


def translator_stage(**changes) -> D:
  return D(
    {
      'kind': 'translator',
      'steps': 50_000,
      'batch': batch(low_rows=1, full_rows=1, source_crop='plain'),
      'optimizer': optimizer(
        kind='adam',
        learning_rate=1e-4,
        betas=(0.5, 0.999),
        weight_decay=0.0,
        head_lr_multiplier=1.0,
        head_pattern='',
        frozen=(),
        repeats=(),
      ),
      **changes,
    }
  )


def warmup_stage(**changes) -> D:
  return D(
    {
      'kind': 'warmup',
      'start': '',  # the stage whose network to start from; '' = model.weights
      'translator': 'translator',  # the translator stage to use (translator.kind = 'network')
      'steps': 80_000,
      # 'distill' | 'source_only' (the loss on the source alone) | 'adversarial' (see below).
      'method': 'distill',
      'mixing': 'class',  # 'class' (cross-domain mixture) | 'none' (the photometric view alone)
      'distillation': 0.5,  # lambda
      'reverse': 0.5,  # weight of teacher(mixed) -> student(plain) against the other direction
      'auxiliary': 0.1,  # weight of all of it on the auxiliary output, where a network has one
      'ema_decay_max': 0.999,  # upper bound of the teacher's decay
      # 'cross_entropy' (divided by all pixels, as DiGA published it) | 'labelled_cross_entropy'
      # (by the labelled ones, as HIAST did) | 'ohem' (hard pixels).
      'loss': 'cross_entropy',
      'ohem_threshold': 0.7,
      'ohem_min_kept': 100_000,
      # Published quirk: the running statistics are also moved by target images. Off for domain
      # generalization, which must not see the target.
      'target_statistics': True,
      # Method 'adversarial': a discriminator tells the source's predictions from the target's.
      'adversarial': {
        'adversarial_weight': 0.05,  # weight of looking like the source to it
        'entropy_weight': 3.0,  # weight of the target predictions' entropy
        'width': 64,  # of the discriminator's first layer
        'optimizer': optimizer(
          kind='adam',
          learning_rate=1e-4,
          weight_decay=0.0,
          decay='cosine',
          head_lr_multiplier=1.0,
          head_pattern='',
          frozen=(),
          repeats=(),
        ),
      },
      'view': photometric_view(),
      'batch': batch(),
      'optimizer': optimizer(),
      **changes,
    }
  )


def label_stage(start: str, **changes) -> D:
  return D(
    {
      'kind': 'label',
      'start': start,  # the stage whose network labels the target
      'network': 'student',  # 'student' | 'teacher'
      'target': 'target',
      'scales': (1.0, 0.5),
      'image_size': (),  # the size at which the network looks; () = as the images are
      # Which labels are kept: 'none' (all of them) | 'constant' (one confidence) | 'cbst' (the most
      # confident share of each class) | 'ias' (instance adaptive: thresholds that follow the
      # images). DiGA's consensus is no choice of this pass but of the self-training, which it goes
      # along with; both can be had together.
      'selector': 'none',
      'threshold': 0.9,  # constant; and where ias starts
      'share': 0.2,  # cbst
      'alpha': 0.5,  # ias: share of the pixels to keep where the threshold is 1
      'beta': 0.9,  # ias: share of the old threshold
      'gamma': 8.0,  # ias: how much less is kept of a class with a low threshold
      'selector_batch': 1,  # images between two moves of the thresholds; published for HIAST: 2
      # Centroids: 'target' (argmax classes) | 'source' (mixed with the translation, pixels where
      # the prediction is right) | 'none' (for a self-training without consensus).
      'centroids_from': 'target',
      'source': 'source',
      'translator': 'translator',
      # Published quirk: five passes, of which all after the first change nothing but the counts.
      'passes': 5,
      'cap': 3000,
      **changes,
    }
  )


def self_training_stage(start: str, labels: str, **changes) -> D:
  return D(
    {
      'kind': 'self_training',
      'start': start,
      'labels': labels,  # the label stage with the pseudo-labels and centroids
      'translator': 'translator',
      'steps': 80_000,
      # 'consensus' (bilateral, no threshold) | 'none' (keep all labels that were written).
      'selector': 'consensus',
      'rank': 1,  # consensus: among how many nearest centroids the label's must be; DiGA: 1
      'mixing': 'class',  # of the source's second view, as in the warm-up
      # What is pasted over target images: 'class' (half of a source image's classes) |
      # 'copy_paste' (hard classes of other target images) | 'none'.
      'target_mixing': 'class',
      'copy_paste': copy_paste(),
      'distillation': 0.25,
      'reverse': 0.5,
      'auxiliary': 0.1,
      'ema_decay_max': 0.999,
      'loss': 'cross_entropy',
      'ohem_threshold': 0.7,
      'ohem_min_kept': 100_000,
      'centroid_momentum': 1e-4,
      'view': photometric_view(beta=0.3),
      'batch': batch(low_rows=2, full_rows=1, target_crop='sized'),
      'optimizer': optimizer(),
      **changes,
    }
  )


def copy_paste(**changes) -> D:
  """HIAST's hard-class copy-paste among target images and their pseudo-labels."""
  return D(
    {
      'hard_classes': 14,  # those with the least confident pseudo-labels
      'excluded_classes': (),  # classes that are never hard, by train id
      # Donors at most. Published, every hard class counts as pasted after the first donor, so that
      # there is never a second: 1 does that.
      'max_donors': 3,
      'leave_out': 0.1,  # share of a class's images, those with the fewest pixels, that lend none
      **changes,
    }
  )


def hiast_optimizer(learning_rate: float) -> D:
  """Adam and a cosine, for the names of `hiast_resnet101`."""
  return optimizer(
    kind='adam',
    learning_rate=learning_rate,
    decay='cosine',
    head_pattern='^aspp',
    frozen=(r'(bn\d|downsample\.1)(/scale|/bias)$',),
    repeats=(),
  )


def hiast_stage(start: str, labels: str, **changes) -> D:
  """HIAST's self-training: target images alone, with a regularization for each region."""
  return D(
    {
      'kind': 'hiast',
      'start': start,
      'labels': labels,  # the label stage with the pseudo-labels
      'steps': 8_000,
      'selector': 'none',  # as in DiGA's self-training; the labels were selected in the label stage
      'rank': 1,
      'target_mixing': 'copy_paste',  # as in DiGA's self-training; 'class' takes source images
      'copy_paste': copy_paste(),
      'strong': 3,  # colour operations chosen for the strong view; 0 = none
      'ema_decay': 0.999,
      'loss': 'labelled_cross_entropy',
      'ohem_threshold': 0.7,
      'ohem_min_kept': 100_000,
      'smoothing': 0.1,  # weight of the uniform target on labelled pixels
      'sharpening': 1.0,  # weight of the entropy on pixels without a label
      'consistency': 0.5,  # weight of the teacher's opinion on pixels without a label
      'centroid_momentum': 1e-4,
      # Six on each of two devices.
      'batch': batch(
        low_rows=0, full_rows=12, source_crop='zoom', target_crop='zoom', redraw=False
      ),
      'optimizer': hiast_optimizer(3e-6),
      **changes,
    }
  )


def hiast_label_stage(start: str, **changes) -> D:
  """HIAST's label pass: the instance adaptive selector, one scale."""
  return label_stage(
    start,
    scales=(1.0,),
    image_size=(768, 1536),
    selector='ias',
    selector_batch=2,
    centroids_from='none',
    **changes,
  )


def diga_stages() -> D:
  """Translator, warm-up, and two rounds of (label, self-train)."""
  return D(
    {
      'translator': translator_stage(),
      'warmup': warmup_stage(),
      'label_1': label_stage('warmup'),
      'self_training_1': self_training_stage('warmup', 'label_1'),
      'label_2': label_stage('self_training_1'),
      'self_training_2': self_training_stage('self_training_1', 'label_2'),
    }
  )


def hiast_stages() -> D:
  """Adversarial warm-up, and three rounds of (label by the teacher, train the student further)."""
  stages = D(
    {
      'warmup': warmup_stage(
        method='adversarial',
        steps=10_000,
        loss='labelled_cross_entropy',
        target_statistics=False,  # the step itself sees the target
        batch=batch(low_rows=0, full_rows=4, source_crop='zoom', target_crop='zoom', redraw=False),
        # The recipe's own warm-up is not published: this is the default of its code.
        optimizer=hiast_optimizer(1e-4),
      )
    }
  )
  network, before = 'student', 'warmup'
  for number, rate in enumerate((3e-6, 2e-6, 1e-6), 1):
    stages[f'label_{number}'] = hiast_label_stage(before, network=network)
    trained = hiast_stage(before, f'label_{number}', optimizer=hiast_optimizer(rate))
    stages[f'hiast_{number}'] = trained
    network, before = 'teacher', f'hiast_{number}'
  return stages


HIAST_RECIPE = ('warmup', 'label_1', 'hiast_1', 'label_2', 'hiast_2', 'label_3', 'hiast_3')


def use_hiast(config: D) -> None:
  """Turns a config into HIAST's recipe on its network; data sets are left as they are."""
  config.recipe = HIAST_RECIPE
  config.stages = hiast_stages()
  config.model.name = 'hiast_resnet101'
  config.model.options = D({'blocks': (3, 4, 23, 3), 'width': 64, 'batch_norm': 'batch'})
  config.translator.kind = 'none'
  config.data.crop = (512, 1024)
  # 768x1536 pixels of Cityscapes, one scale. Published are the sums of softmax maps; with one scale
  # only the interpolation of logits instead of probabilities differs.
  config.evaluation.scales = (0.75,)


def get_config() -> D:
  return D(
    {
      'seed': 0,
      'devices': 0,  # how many of this machine's devices to use; 0 = all, of all processes
      'parallel': 'jit',  # 'jit' (one program for all devices) | 'pmap' (one process only)
      # Whether the backward pass computes each block of the network again instead of keeping its
      # inside: less memory, about a third more arithmetic, the same numbers.
      'remat': False,
      'recipe': (
        'translator',
        'warmup',
        'label_1',
        'self_training_1',
        'label_2',
        'self_training_2',
      ),
      'stages': diga_stages(),
      'model': {
        'name': 'deeplab_resnet101',
        'dtype': 'float32',  # arithmetic inside the network; parameters are always float32
        # A .pth, .safetensors or .npz file; 'efficientnet_lite0' = the ImageNet weights of the
        # extra `demo`; '' = random.
        'weights': '',
        # Whether layers that the file lacks (or holds in another shape) may start at random.
        'partial_weights': True,
        'options': {
          'blocks': (3, 4, 23, 3),
          'width': 64,
          'feature': 256,
          'dropout': 0.1,
          # 'batch' normalises with batch statistics in training and moves the running ones, as
          # published | 'running' always uses the pretrained ones.
          'batch_norm': 'batch',
        },
      },
      'translator': {
        'kind': 'network',  # 'network' | 'fourier' (amplitude swap, untrained) | 'none'
        'width': 64,
        'blocks': 4,
        'discriminator_width': 64,
        'discriminator_layers': 4,
        'discriminator_scales': 3,
        'vgg': '',  # VGG-19 weights for the perceptual term; '' = without it
        # Files to start these two networks from, such as those that DiGA's code saves; with
        # stages.translator.steps=0 they are used as they are.
        'enc_s': '',
        'dec_s2t': '',
        'adversarial': 0.5,
        'cycle': 10.0,
        'edge': 20.0,
        'perceptual': 0.1,
        'reconstruction': 0.001,
        'beta': 0.01,  # fourier: half the side of the swapped square, as a share of the image
      },
      'data': {
        'root': '',
        'cache': '~/.cache/diga_jax',  # rendered scenes
        'classes': 19,
        # Class names and colours: 'cityscapes19' | 'camvid11' | 'robotcar9', or your own: one name
        # and one (red, green, blue) per class.
        'names': 'cityscapes19',
        'class_names': (),
        'palette': (),
        # 'stop' at a file that cannot be read | 'skip': the next image in order stands in for it,
        # and the result of the stage lists what was skipped. Evaluation and label passes stop.
        'on_bad_file': 'stop',
        'crop': (512, 896),
        'sets': {
          # Published quirk: DiGA trains on 18,111 of the 24,966 images, and says not why.
          'source': datasets.gta5(list='gta5_diga_18111'),
          'target': datasets.cityscapes('train', labelled=False),
          'cityscapes_val': datasets.cityscapes('val'),
        },
      },
      'evaluation': {
        'name': 'published',  # a protocol is a folder below WORKDIR/evaluation
        'stages': (),  # () = every network that the recipe trains
        'sets': ('cityscapes_val',),
        'scales': (1.0, 0.5),
        'flip': False,
        'network': 'student',  # 'student' | 'teacher'
        'batch_size': 1,
        'pictures': 8,  # how many images of each set are drawn
      },
      # Weights of a stage: 'last', or 'oracle': the best on evaluation.sets[0] every save_every
      # steps, which uses target labels. Published: oracle, every 1000 steps.
      'checkpoint_choice': 'last',
      'save_every': 1000,
      'log_every': 10,
      'profile_steps': (),  # (first, last): a profiler trace of these steps of each stage
      'compilation_cache': '',  # a folder that keeps compiled programs for the next run; '' = none
    }
  )


def transformer_optimizer(**changes) -> D:
  """AdamW for Mix Transformers, with DAFormer's values (arXiv 2111.14887)."""
  return optimizer(
    **{
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
    | changes
  )


def hrnet_options(**changes) -> D:
  """Options of hrnet_w48_ocr: fed DiGA's pixel values with the channels turned to RGB."""
  return D({'pixels': 'rgb', 'dropout': 0.05, 'batch_norm': 'batch', **changes})


def mit_options(**changes) -> D:
  """Options of mit_bN_segformer and mit_bN_daformer: fed what their ImageNet weights were."""
  return D(
    {'pixels': 'imagenet', 'dropout': 0.1, 'drop_path': 0.1, 'batch_norm': 'batch', **changes}
  )


def lite0_options(**changes) -> D:
  """Options of deeplab_efficientnet_lite0: BatchNorm stays at its ImageNet statistics."""
  return D(
    {'output_stride': 16, 'feature': 256, 'dropout': 0.1, 'batch_norm': 'running', **changes}
  )


def small_scale(config: D, steps: dict[str, int]) -> None:
  """Turns the recipe into one for EfficientNet-Lite0 on two CPU cores.

  A source-only stage comes first: the published network starts from ImageNet/COCO and has 80,000
  steps, a small one gains from the warm-up only when it has seen its source. The teacher's decay
  is at most 0.99: 0.999 is a plain average over runs this short.
  """
  config.stages.source_only = warmup_stage(method='source_only')
  config.stages.warmup.start = 'source_only'
  for name, stage in config.stages.items():
    if stage.kind not in ('warmup', 'self_training'):
      continue
    stage.ema_decay_max = 0.99
    stage.steps = steps.get(name, stage.steps)
    stage.batch.low_rows, stage.batch.full_rows = 2, 2
    stage.optimizer.learning_rate = 5e-3
    stage.optimizer.head_lr_multiplier = 20.0
    stage.optimizer.frozen = LITE0_FROZEN
    stage.optimizer.repeats = ()
    if stage.kind == 'warmup':
      stage.target_statistics = False  # the statistics never move
  config.save_every = 100


def semi_supervised(config: D) -> None:
  """Turns the recipe into one for images of one domain, of which some have labels.

  Labelled crops are plain, unlabelled ones are scaled in self-training; centroids are those of the
  labelled images (docs/method.md, semi-supervised).
  """
  config.translator.kind = 'none'
  config.recipe = tuple(name for name in config.recipe if name != 'translator')
  for stage in config.stages.values():
    if stage.kind == 'label':
      stage.centroids_from = 'source'
    if stage.kind == 'warmup':
      stage.target_statistics = False  # there is one domain
    if stage.kind == 'self_training':
      stage.distillation = 0.5
    if stage.kind in ('warmup', 'self_training'):
      stage.batch.source_crop, stage.batch.redraw = 'plain', False
      stage.batch.target_crop = 'sized' if stage.kind == 'self_training' else 'plain'


# BatchNorm's scales and biases, and the stem and the first stages as a whole.
LITE0_FROZEN = (r'_bn\d', r'_conv_stem', r'_blocks\.[0-4]/')
