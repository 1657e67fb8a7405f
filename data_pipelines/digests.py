"""SHA-256 of files."""

import concurrent.futures
import hashlib
import os
from collections.abc import Iterable

THREADS = min(8, 2 * (os.cpu_count() or 1))  # hashing and reading let go of the interpreter


def of_file(path: str | os.PathLike[str]) -> str:
  """SHA-256 of a file's bytes (hex). Raises OSError if it cannot be read."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def of_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
  """`of_file` of each of the files, in order, by threads."""
  with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    return list(pool.map(of_file, paths))
