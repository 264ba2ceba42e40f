from interp_lab import torchvision  # noqa: F401  before others import it: it may need mending
