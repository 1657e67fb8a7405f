"""Every setting with its default: the published DiGA values for GTA5 -> Cityscapes.

An experiment is a short file that calls `get_config()` and changes what differs; the command line
changes single fields (`--config.stages.warmup.steps=100`). Sizes are (height, width) in pixels.
"""

from ml_collections import ConfigDict as D


def dataset(**changes) -> D:
  """A set of images, labelled or not."""
  return D(
    {
      'kind': 'folder',  # 'folder' | 'scenes' (rendered street scenes, nothing to download)
      # Folder: patterns below data.root with {id}; `list` is a file with one id a line ('' = all
      # images that match). Labels '' = unlabelled. `table` maps the ids in the files to train ids.
      'images': '',
      'labels': '',
      'list': '',
      'table': 'identity',
      # Scenes: a look and a range of scene numbers.
      'look': 'game',
      'first': 0,
      'count': 0,
      'size': (128, 256),
      # Images of the 'low' kind are resized to this before cropping; () = as they are.
      'low_size': (),
      # Images and labels are resized to this for evaluation; () = as they are.
      'evaluation_size': (),
      **changes,
    }
  )


def optimizer(**changes) -> D:
  """SGD with polynomial decay. Patterns are regular expressions on '/'-joined parameter names."""
  return D(
    {
      'kind': 'sgd',  # 'sgd' | 'adam', both as in PyTorch (weight decay added to the gradient)
      'learning_rate': 2.5e-4,
      'momentum': 0.9,
      'betas': (0.9, 0.999),
      'weight_decay': 5e-4,
      'power': 0.9,
      'warmup': 0,  # steps of linear warm-up from 0
      'total': 0,  # steps over which the rate decays; 0 = the steps of the stage
      'head': 10.0,  # the rate of parameters that match head_pattern is this many times larger
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
      'low': 1,
      'full': 2,
      'source': 'source',  # names in data.sets
      'target': 'target',
      'source_crop': 'sized',  # 'sized' (own U(0.7, 1) in width and height, then crop) | 'plain'
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
      'batch': batch(low=1, full=1, source_crop='plain'),
      'optimizer': optimizer(
        kind='adam',
        learning_rate=1e-4,
        betas=(0.5, 0.999),
        weight_decay=0.0,
        head=1.0,
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
      'method': 'distill',  # 'distill' | 'source_only' (cross entropy on the source alone)
      'mixing': 'class',  # 'class' (cross-domain mixture) | 'none' (the photometric view alone)
      'distillation': 0.5,  # lambda
      'reverse': 0.5,  # weight of teacher(mixed) -> student(plain) against the other direction
      'ema': 0.999,  # upper bound of the teacher's decay
      'loss': 'cross_entropy',  # 'cross_entropy' (over all pixels) | 'ohem'
      'ohem_threshold': 0.7,
      'ohem_min_kept': 100_000,
      # Published quirk: the running statistics are also moved by target images. Off for domain
      # generalization, which must not see the target.
      'target_statistics': True,
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
      'start': start,  # the stage whose student labels the target
      'target': 'target',
      'scales': (1.0, 0.5),
      # Centroids: 'target' (argmax classes) | 'source' (mixed with the translation, pixels where
      # the prediction is right).
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
      'selector': 'consensus',  # 'consensus' (bilateral, no threshold) | 'none' (keep all labels)
      'mixing': 'class',
      'distillation': 0.25,
      'reverse': 0.5,
      'ema': 0.999,
      'loss': 'cross_entropy',
      'ohem_threshold': 0.7,
      'ohem_min_kept': 100_000,
      'centroid_momentum': 1e-4,
      'view': photometric_view(beta=0.3),
      'batch': batch(low=2, full=1, target_crop='sized'),
      'optimizer': optimizer(),
      **changes,
    }
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
        'names': 'cityscapes19',  # class names and colours: 'cityscapes19' | 'camvid11'
        'crop': (512, 896),
        'sets': {
          'source': dataset(
            images='GTA5/images/{id}.png',
            labels='GTA5/labels/{id}.png',
            table='gta5',
            low_size=(720, 1280),
          ),
          'target': dataset(
            images='cityscapes/leftImg8bit/train/{id}_leftImg8bit.png', low_size=(512, 1024)
          ),
          'cityscapes_val': dataset(
            images='cityscapes/leftImg8bit/val/{id}_leftImg8bit.png',
            labels='cityscapes/gtFine/val/{id}_gtFine_labelIds.png',
            table='cityscapes',
          ),
        },
      },
      'evaluation': {
        'name': 'published',  # a protocol is a folder below WORKDIR/evaluation
        'stages': (),  # () = every network that the recipe trains
        'sets': ('cityscapes_val',),
        'scales': (1.0, 0.5),
        'flip': False,
        'network': 'student',  # 'student' | 'teacher'
        'batch': 1,
        'pictures': 8,  # how many images of each set are drawn
      },
      # Weights of a stage: 'last', or 'oracle': the best on evaluation.sets[0] every save_every
      # steps, which uses target labels. Published: oracle, every 1000 steps.
      'choose': 'last',
      'save_every': 1000,
      'log_every': 10,
      'profile_steps': (),  # (first, last): a profiler trace of these steps of each stage
      'compilation_cache': '',  # a folder that keeps compiled programs for the next run; '' = none
    }
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
    stage.ema = 0.99
    stage.steps = steps.get(name, stage.steps)
    stage.batch.low, stage.batch.full = 2, 2
    stage.optimizer.learning_rate = 5e-3
    stage.optimizer.head = 20.0
    stage.optimizer.frozen = LITE0_FROZEN
    stage.optimizer.repeats = ()
    if stage.kind == 'warmup':
      stage.target_statistics = False  # the statistics never move
  config.save_every = 100


# BatchNorm's scales and biases, and the stem and the first stages as a whole.
LITE0_FROZEN = (r'_bn\d', r'_conv_stem', r'_blocks\.[0-4]/')
