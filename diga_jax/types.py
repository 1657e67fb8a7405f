"""Names for what is passed around: trees of arrays, batches, steps, and rows of results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict

import jax
import numpy as np
from ml_collections import ConfigDict

if TYPE_CHECKING:
  from diga_jax.state import TrainState

PyTree: TypeAlias = Any  # nested dicts, tuples and dataclasses of arrays, or of their shapes
Params: TypeAlias = Any  # a network's parameters, {layer: {..., 'kernel': array}}
Variables: TypeAlias = Mapping[str, Params]  # {'params', ['batch_stats']}
Outputs: TypeAlias = dict[str, jax.Array]  # {'logits', 'feature', ['auxiliary_logits']}
Batch: TypeAlias = Mapping[str, jax.Array]  # {'source_image', 'source_label', 'target_image', ...}
Metrics: TypeAlias = dict[str, jax.Array]  # of one step: scalars, and by class [C]
Keys: TypeAlias = jax.Array | None  # [B] one typed key per example; None: nothing is dropped
Size: TypeAlias = tuple[int, ...]  # (height, width) in pixels
# Of one stage, a row for each checkpoint that may be chosen: 'step', and its scores by criterion.
CheckpointTable: TypeAlias = list[dict[str, float]]


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """The settings that a training step reads: its stage's, the translator's, `model.precision`."""

  stage: ConfigDict
  translator: ConfigDict
  precision: str = 'default'  # of the translator's products: the network knows its own


class SegmentationNet(Protocol):
  """A linen module from normalised images [B, H, W, 3] to `Outputs` at its stride."""

  classes: int  # channels of the logits
  dtype: PyTree  # computed in; parameters and outputs are float32
  precision: str  # of products, see layers.Network

  def init(self, rngs: PyTree, *args: PyTree, **kwargs: PyTree) -> PyTree: ...

  def apply(self, variables: PyTree, *args: PyTree, **kwargs: PyTree) -> PyTree: ...


class TrainStep(Protocol):
  """One training step: a pure function of the state, the batch and frozen networks.

  Args:
    state: the state after i steps.
    batch: those of source_image and target_image, uint8 RGB [B, H, W, 3], and source_label and
      target_label, [B, H, W], that the kind of stage reads.
    frozen: parameters of a network that is not trained: the translator's (translator.kind
      'network'); None without one.
    model, tx: the network and its optimizer.
    config: the settings of the stage and of the translator.
    axis_name: under `jax.pmap`, the axis over which the batch is spread.

  Returns:
    The state after i + 1 steps, and the losses and other metrics of the step.
  """

  def __call__(
    self,
    state: 'TrainState',
    batch: Batch,
    frozen: Params | None = None,
    *,
    model: PyTree,
    tx: PyTree,
    config: StepConfig,
    axis_name: str | None = None,
  ) -> tuple['TrainState', Metrics]: ...


class NetworkScores(TypedDict):
  """What `inference.evaluate` measures of a network. Shares are fractions, None without a pixel."""

  kind: Literal['network']
  mean_iou: float | None
  mean_iou_subsets: dict[str, float | None]
  pixel_accuracy: float | None
  mean_accuracy: float | None
  fw_accuracy: float | None
  iou: dict[str, float | None]
  confusion: list[list[int]]
  images: int
  pixels: int
  protocol: dict[str, PyTree]


class ImageCounts(NamedTuple):
  """Pixels of a network on a test set, int64 [seeds, images, classes]."""

  intersection: np.ndarray
  union: np.ndarray


class NetworkRow(NetworkScores):
  """A network's row of results."""

  name: str


class LabelShares(TypedDict):
  """Shares of the pixels of all classes or of one: fractions, None without a pixel."""

  kept: float | None
  coverage: float | None
  accuracy: float | None
  accuracy_kept: float | None
  accuracy_rejected: float | None
  pixels: int


class LabelScores(LabelShares):
  """What `inference.label_quality` measures of pseudo-labels."""

  kind: Literal['labels']
  per_class: dict[str, LabelShares]
  images: int


class LabelRow(LabelScores):
  """A label pass's row of results."""

  name: str
  selector: str
  protocol: dict[str, PyTree]


Row: TypeAlias = NetworkRow | LabelRow
Rows: TypeAlias = Sequence[Row]
