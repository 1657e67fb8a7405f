"""Settings of JAX that change or stop a run: their values here, whatever the environment says."""

import jax

# A run is a function of its config and seed, not of a JAX_... variable that a shell has set.
SETTINGS: dict[str, object] = {
  'jax_enable_x64': False,
  'jax_numpy_dtype_promotion': 'standard',
  'jax_default_matmul_precision': None,
  'jax_default_prng_impl': 'threefry2x32',
  'jax_threefry_partitionable': True,
  'jax_threefry_gpu_kernel_lowering': False,
  'jax_enable_custom_prng': False,
  'jax_random_seed_offset': 0,
  'jax_high_dynamic_range_gumbel': False,
  'jax_softmax_custom_jvp': False,
  'jax_use_direct_linearize': True,
  'jax_allow_f16_reductions': True,
  'jax_disable_jit': False,
  'jax_transfer_guard': 'allow',
  'jax_default_device': None,
  'jax_debug_nans': False,
  'jax_debug_infs': False,
  'jax_disable_most_optimizations': False,
  'jax_optimization_level': 'UNKNOWN',
  'jax_memory_fitting_level': 'O2',
  'jax_exec_time_optimization_effort': 0.0,
  'jax_memory_fitting_effort': 0.0,
}


def fix() -> None:
  """Sets them; to be called before anything is traced."""
  for name, value in SETTINGS.items():
    jax.config.update(name, value)
