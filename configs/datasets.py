"""The data sets of the field in the folders in which they are distributed (docs/datasets.md).

Every function gives the settings of one set, to be put into `config.data.sets`; all paths are below
`config.data.root`. Where your copy lies elsewhere, change `images` and `labels`.
"""

from typing import Any

from ml_collections import ConfigDict

from diga_jax.configs.fields import fields


def dataset(**changes: Any) -> ConfigDict:
  """A set of images, labelled or not."""
  return fields(
    {
      'kind': 'folder',  # 'folder' | 'scenes' (rendered street scenes, nothing to download)
      # Folder: pattern of the image files below data.root, with {id}, which may hold folders.
      'images': '',
      'labels': '',  # folder: pattern of the label files, with the same {id}; '' = unlabelled
      # Folder: which images: a file with one id or path a line below data.root, or the name of a
      # list that comes with this package (data_pipelines/lists); '' = all that match `images`.
      'list': '',
      'without': '',  # folder: a list of images to leave out, given in the same ways
      # Folder: what label files hold: 'index' (grey ids, or a palette's indices) | 'rgb16' (16-bit
      # ids in the first of three channels) | 'rgba' (ids in the first of four) | 'colour'.
      'label_format': 'index',
      # From the ids in the files to train ids: a table of data_pipelines/label_tables.py, or pairs
      # (id, train id), for 'colour' ((red, green, blue), train id). 255 = ignored.
      'table': 'identity',
      # Folder: where `prepare` has packed these files, below data.root or absolute; '' reads the
      # files. The batches are the same.
      'shards': '',
      'look': 'game',  # scenes: 'game' | 'camera' | 'dusk' | 'fog'
      'first': 0,  # scenes: number of the first
      'count': 0,  # scenes: how many
      'size': (128, 256),  # scenes: size in which they are rendered
      # The size to which the low rows of a batch are resized before cropping; () = as they are.
      'low_size': (),
      # The size to which the full rows are; () = as they are.
      'full_size': (),
      # Smallest and largest height of the window that the crop 'zoom' cuts out.
      'zoom_heights': (341, 1000),
      # The size to which images and labels are resized for evaluation; () = as they are.
      'evaluation_size': (),
    },
    changes,
  )


def gta5(**changes: Any) -> ConfigDict:
  """24,966 images with labels, 1052x1914.

  `list='gta5_diga_18111'` takes those that DiGA trains on, `without='gta5_unusable_25'` leaves out
  what HIAST leaves out.
  """
  return dataset(
    **{
      'images': 'GTA5/images/{id}.png',
      'labels': 'GTA5/labels/{id}.png',
      'table': 'gta5',
      'low_size': (720, 1280),
      'full_size': (1052, 1914),  # a few files are larger or smaller
    }
    | changes
  )


def synthia(**changes: Any) -> ConfigDict:
  """9,400 images with labels, 760x1280, of the 16 classes that Cityscapes has as well.

  `table` 'synthia16_packed' numbers the classes 0 to 15, 'synthia16' as Cityscapes numbers its 19.
  """
  return dataset(
    **{
      'images': 'SYNTHIA-RAND-CITYSCAPES/RGB/{id}.png',
      'labels': 'SYNTHIA-RAND-CITYSCAPES/GT/LABELS/{id}.png',
      'label_format': 'rgb16',
      'table': 'synthia16_packed',
      'low_size': (760, 1280),
      'full_size': (1140, 1920),
    }
    | changes
  )


def cityscapes(
  split: str, labelled: bool = True, train_ids: bool = False, **changes: Any
) -> ConfigDict:
  """2,975 train or 500 val images; `train_ids` reads labelTrainIds files where they were made."""
  kind = 'labelTrainIds' if train_ids else 'labelIds'
  return dataset(
    **{
      'images': f'cityscapes/leftImg8bit/{split}/{{id}}_leftImg8bit.png',
      'labels': f'cityscapes/gtFine/{split}/{{id}}_gtFine_{kind}.png' if labelled else '',
      'table': 'train_ids' if train_ids else 'cityscapes',
      'low_size': (512, 1024),
    }
    | changes
  )


def bdd100k(split: str = 'val', **changes: Any) -> ConfigDict:
  """1,000 val images of the 10k set, 720x1280."""
  return dataset(
    **{
      'images': f'bdd100k/images/10k/{split}/{{id}}.jpg',
      'labels': f'bdd100k/labels/sem_seg/masks/{split}/{{id}}.png',
      'table': 'bdd100k',
    }
    | changes
  )


def mapillary(split: str = 'validation', **changes: Any) -> ConfigDict:
  """2,000 validation images of many sizes, with the labels of version 1.2 (66 classes).

  As release 2.0 lays them out; in release 1.2 the labels lie in `mapillary/SPLIT/labels/`.
  """
  return dataset(
    **{
      'images': f'mapillary/{split}/images/{{id}}.jpg',
      'labels': f'mapillary/{split}/v1.2/labels/{{id}}.png',
      'table': 'mapillary',
    }
    | changes
  )


def robotcar(split: str, **changes: Any) -> ConfigDict:
  """894 train images without and 271 val images with labels of 9 classes, 960x1280."""
  return dataset(
    **{
      'images': f'Oxford_Robot_ICCV19/{split}/{{id}}.png',
      'labels': 'Oxford_Robot_ICCV19/anno/{id}.png' if split == 'val' else '',
      'list': f'oxford_robotcar_{split}',
      'label_format': 'rgba',
      'table': 'robotcar9',
      'zoom_heights': (341, 900),
    }
    | changes
  )


def camvid11(split: str, **changes: Any) -> ConfigDict:
  """367 train, 101 val or 233 test images, 360x480, in the 11 classes of the SegNet split."""
  return dataset(
    **{
      'images': f'CamVid/{split}/{{id}}.png',
      'labels': f'CamVid/{split}annot/{{id}}.png',
      'table': 'camvid11',
    }
    | changes
  )


def camvid32(**changes: Any) -> ConfigDict:
  """701 images, 720x960, with the original colours of 32 classes, joined to the 11."""
  return dataset(
    **{
      'images': 'CamVid/701_StillsRaw_full/{id}.png',
      'labels': 'CamVid/LabeledApproved_full/{id}_L.png',
      'label_format': 'colour',
      'table': 'camvid32',
    }
    | changes
  )


def acdc(condition: str, split: str, **changes: Any) -> ConfigDict:
  """Fog, night, rain or snow; 1080x1920, Cityscapes' train ids."""
  return dataset(
    **{
      'images': f'acdc/rgb_anon/{condition}/{split}/{{id}}_rgb_anon.png',
      'labels': f'acdc/gt/{condition}/{split}/{{id}}_gt_labelTrainIds.png',
      'table': 'train_ids',
    }
    | changes
  )


def dark_zurich(split: str = 'val', **changes: Any) -> ConfigDict:
  """50 val images at night, 1080x1920, Cityscapes' train ids."""
  return dataset(
    **{
      'images': f'dark_zurich/rgb_anon/{split}/night/{{id}}_rgb_anon.png',
      'labels': f'dark_zurich/gt/{split}/night/{{id}}_gt_labelTrainIds.png',
      'table': 'train_ids',
    }
    | changes
  )
