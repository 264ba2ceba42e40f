"""The progress bar of long work: a widget where the notebook can show one, text elsewhere."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets gets text, which is no fault
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
