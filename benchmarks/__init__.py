import interp_lab  # noqa: F401  torchvision cannot be imported before it beside a CPU build of torch
