import interp_lab  # noqa: F401  # before others import torchvision, which it may have to mend
