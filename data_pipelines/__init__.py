"""Images and labels from disk to batches: TensorFlow, NumPy and Pillow, never JAX.

The modules are imported by name (`from data_pipelines import sources`): nothing is imported here,
so that reading a folder does not wait for TensorFlow.
"""

import os

# TensorFlow warns about every damaged file that it meets, and about accelerators that it is not
# meant to see; what the user can mend is raised as `errors.BadInput`.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
