"""Images and labels from disk to batches: TensorFlow, NumPy and Pillow, never JAX.

The modules are imported by name (`from data_pipelines import sources`): nothing is imported here,
so that reading a folder does not wait for TensorFlow.
"""
