"""The one exception for mistakes that a user can make and mend."""


class BadInput(ValueError):
  """Wrong input: a file, a folder or a config field that the user has to change.

  The message is one line that names the file or field and says how to mend it. The command line
  prints it without a traceback and exits with status 2.
  """
