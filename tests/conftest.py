"""For all tests."""

from interp_lab import torchvision  # noqa: F401  # before tests, or Zennit, import it: it may need mending
