"""The commands of the command line, by subject: their arguments, and what they do.

A new command is a file with `add_arguments(commands)` and one more name in `__main__.COMMANDS`.
JAX, TensorFlow and Orbax take seconds to import: commands import them, and what needs them, in the
functions that carry them out, so that --help and a wrong option are answered at once.
"""
