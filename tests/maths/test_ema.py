import jax.numpy as jnp
import numpy as np

from diga_jax import ema


def test_decay_is_the_published_one(golden):
  z = golden('schedules')
  np.testing.assert_allclose(ema.decay(z['step']), z['ema'], rtol=1e-6)


def test_a_lower_maximum_is_reached_sooner():
  assert ema.decay(5, maximum=0.5) == 0.5
  assert ema.decay(0, maximum=0.5) == 0


def test_the_teacher_starts_as_the_student_to_the_bit():
  student = {'a': jnp.asarray([0.1, 1e-8, -3.7]), 'b': [jnp.float32(7.3)]}
  teacher = {'a': jnp.asarray([5.0, 6.0, 7.0]), 'b': [jnp.float32(1.0)]}
  first = ema.update(teacher, student, ema.decay(0))
  np.testing.assert_array_equal(first['a'], student['a'])
  np.testing.assert_array_equal(first['b'][0], student['b'][0])


def test_below_the_maximum_the_teacher_is_a_plain_average():
  students = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
  teacher = jnp.zeros(4)
  for step, student in enumerate(students):
    teacher = ema.update(teacher, jnp.asarray(student), ema.decay(step))
  np.testing.assert_allclose(teacher, students.mean(0), atol=1e-6)
