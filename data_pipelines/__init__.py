"""Images and labels from disk to batches: TensorFlow, NumPy and Pillow, never JAX.

No module is imported here, so that reading a folder does not wait for TensorFlow.
"""

import os

# Read by TensorFlow when it is imported: no start-up messages, the same arithmetic on every CPU.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
