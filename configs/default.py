"""Every setting with its default: the published DiGA values for GTA5 -> Cityscapes.

An experiment is a short file that calls `get_config()` and changes what differs; the command line
changes single fields (`--config.stages.warmup.steps=100`). Sizes are (height, width) in pixels.
docs/config.md has every field in tables, made from the comments here and beside this file.
"""

from ml_collections import ConfigDict

from diga_jax.configs import datasets, networks, recipes


def get_config() -> ConfigDict:
  """The root of every config; stages, data sets and optimizers have files of their own."""
  return ConfigDict(
    {
      'seed': 0,  # of all randomness
      'devices': 0,  # how many of this machine's devices to use; 0 = all, of all processes
      'parallel': 'jit',  # 'jit' (one program for all devices) | 'pmap' (one process only)
      # Evaluations and label passes compile a program for each size of images. Of sets with more
      # sizes than this, images share so many shapes: they are padded, or cut into overlapping
      # windows, which changes predictions (docs/predict.md). 0 = every size is computed as it is.
      'programs': 16,
      # Whether the backward pass computes each block of the network again instead of keeping its
      # activations: less memory, about a third more arithmetic, the same numbers.
      'remat': False,
      'recipe': recipes.DIGA,  # which stages run, by name, in this order
      'stages': recipes.diga_stages(),  # by name; see the groups `stages.*_stage`
      # The segmentation network.
      'model': {
        'name': 'deeplab_resnet101',  # a name of `diga_jax/models/__init__.py`
        'dtype': 'float32',  # arithmetic inside the network; parameters are always float32
        # Of float32 products in every network, the translator's too: 'default' (bfloat16 on TPU,
        # TF32 on newer GPUs) | 'high' (three bfloat16 passes; TF32) | 'highest' (float32).
        'precision': 'default',
        # A file of PyTorch's, .safetensors or .npz, a folder of the Hugging Face Hub or of a stage;
        # FILE#PART = a part of it, such as ckpt.pth#ema_model; 'efficientnet_lite0' = the ImageNet
        # weights of the extra `demo`; 'random' = at random; '' = to be given: random for plans and
        # benchmarks, but no published network, or one with frozen norms, is trained so.
        'weights': '',
        # The file may lack the head, hold it in another shape, and have a classifier of its own.
        # Patterns of PyTorch's names of what else may differ; what it lacks starts at random.
        'partial_weights': (),
        'options': networks.deeplab(),  # of this network: see the groups `networks.*`
      },
      # The translator between the domains.
      'translator': {
        'kind': 'network',  # 'network' | 'fourier' (amplitude swap, untrained) | 'none'
        'width': 64,  # channels of the first layer of its encoders and decoders
        'blocks': 4,  # residual blocks of each encoder and decoder
        'discriminator_width': 64,  # channels of a discriminator's first layer
        'discriminator_layers': 4,  # of a discriminator
        'discriminator_scales': 3,  # discriminators, each at half the size of the one before
        'vgg': '',  # VGG-19 weights for the perceptual term; '' = without it
        # A file to start this encoder from, such as those that DiGA's code saves; with
        # stages.translator.steps=0 it is used as it is. '' = random.
        'enc_s': '',
        'dec_s2t': '',  # a file to start this decoder from, as enc_s
        'adversarial': 0.5,  # weight of the adversarial term
        'cycle': 10.0,  # weight of the cycle's L1
        'edge': 20.0,  # weight of the L1 along the labels' edges
        'perceptual': 0.1,  # weight of the perceptual term
        'reconstruction': 0.001,  # weight of the reconstruction's L1
        'beta': 0.01,  # 'fourier': half the side of the swapped square, as a share of the image
      },
      # The images, and the classes that the network learns.
      'data': {
        'root': '',  # the folder below which the sets' paths are
        'cache': '~/.cache/diga_jax',  # the folder for rendered scenes and what `doctor` found
        'classes': 19,  # how many classes; train ids are 0 to classes - 1
        # Class names and colours: 'cityscapes19' | 'synthia16' | 'camvid11' | 'robotcar9'.
        'names': 'cityscapes19',
        # Your own names instead, one per class, no two alike; results then call the class set
        # 'own', with their number and a hash.
        'class_names': (),
        'palette': (),  # your own colours instead, one (red, green, blue) per class
        # 'stop' at a file that cannot be read | 'skip': the next image in order stands in for it,
        # and the result of the stage lists what was skipped. Evaluation and label passes stop.
        'on_bad_file': 'stop',
        'max_pixels': 512_000_000,  # height x width of the largest image that is read
        'crop': (512, 896),  # size of the images that the networks are trained on; 32 at least
        # By name; see `datasets.dataset`. Published quirk: DiGA trains on 18,111 of the 24,966
        # images of GTA5, without saying why.
        'sets': {
          'source': datasets.gta5(list='gta5_diga_18111'),  # labelled images to learn from
          'target': datasets.cityscapes('train', labelled=False),  # images to adapt to
          'cityscapes_val': datasets.cityscapes('val'),  # labelled images to measure on
        },
      },
      # What is measured, and how.
      'evaluation': {
        'name': 'published',  # a protocol is a folder below WORKDIR/evaluation
        'stages': (),  # whose networks; () = every network that the recipe trains
        'sets': ('cityscapes_val',),  # names in data.sets
        'scales': (1.0, 0.5),  # of the image; the largest logit over the scales counts
        'flip': False,  # whether the mirrored image is predicted as well
        'network': 'student',  # 'student' | 'teacher'
        # Which checkpoints of each stage: 'last' and names in criteria.record, each a row that is
        # called STAGE@CHOICE. () = the one that later stages take, by checkpoint_choice.
        'checkpoints': (),
        # 'present': means over the classes that labels or predictions hold, as DiGA. 'hiast': of
        # Cityscapes' 19; a class that does not occur counts as 0, and the means over SYNTHIA's 16
        # and 13 are sums over all 19 (13: all but wall, fence, pole) divided by 16 and 13.
        'class_means': 'present',
        # The benchmark's own mean, by which 'oracle' chooses: '' (over all classes) | '19' | '16' |
        # '13', where the classes have it.
        'mean': '',
        'batch_size': 1,  # images at a time
        'pictures': 8,  # how many images of each set are drawn
      },
      # Weights of a stage: 'last', or the best every save_every steps: by 'agreement', 'consensus'
      # or 'density' on criteria.set, without labels (docs/checkpoints.md), or by 'oracle', mIoU
      # on evaluation.sets[0], which uses target labels. Published: oracle, every 1000 steps.
      'checkpoint_choice': 'last',
      # By what checkpoints can be chosen.
      'criteria': {
        # Recorded every save_every steps, whatever checkpoint_choice is: names as there. The best
        # checkpoint by each is kept, to be measured by evaluation.checkpoints. 'consensus' is that
        # of the stages with centroids.
        'record': (),
        # A name in data.sets: target images that no stage learns from and no number is measured on;
        # their labels are not read.
        'set': '',
      },
      # Of a complete stage: 'networks' (student, teacher and statistics at the steps to use) |
      # 'all' (the last two checkpoints and those to use, with the optimizer's state).
      'keep_checkpoints': 'networks',
      # Of a study, by name: (('unmixed', ('stages.warmup.mixing=none',)), ...). () = none.
      'variants': (),
      'save_every': 1000,  # steps between two checkpoints
      'log_every': 10,  # steps between two lines of the log
      # Steps between two evaluations of the network while it trains, on evaluation.sets by their
      # labels, for a curve alone (docs/live.md): nothing else depends on it. One comes after the
      # last step too. 0 = none.
      'evaluate_every': 0,
      # Where curves, pictures and histograms go: 'tensorboard' (event files in each stage's folder,
      # which report.html reads), 'wandb', 'mlflow' (extras of these names; docs/live.md).
      'trackers': ('tensorboard',),
      'profile_steps': (),  # (first, last): a profiler trace of these steps of each stage
      # A folder that keeps compiled programs for later runs; 'default' is that of
      # JAX_COMPILATION_CACHE_DIR, else ~/.cache/diga_jax/programs (2 GiB at most); '' = none.
      'compilation_cache': 'default',
    }
  )
