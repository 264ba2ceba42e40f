r"""Models that are interpretable by design: what they compute is what they show.

========================================= ==========================================================================
:func:`sparse_softmax`                    a few weights per class, shown as a template
:func:`decision_tree`                     rules
:func:`additive_model`                    one curve per feature
:func:`concept_bottleneck`                concepts that a person can correct, and weights of them
:func:`prototype_network`                 similarity to pieces of training images
:class:`BagOfLocalFeatures`               a map of evidence that sums to the logit
========================================= ==========================================================================

All of them are functions from a batch ``(N, ...)`` to scores ``(N, K)``. The first three read the pixels, or the
numbers that a function ``features`` computes from the batch.
"""

from .additive import AdditiveModel, additive_model
from .bottleneck import ConceptBottleneck, concept_bottleneck
from .linear import LinearModel, sparse_softmax
from .local_features import BagOfLocalFeatures
from .prototypes import PrototypeEvidence, PrototypeNetwork, prototype_network
from .tree import TreeModel, decision_tree

__all__ = [
    "AdditiveModel",
    "BagOfLocalFeatures",
    "ConceptBottleneck",
    "LinearModel",
    "PrototypeEvidence",
    "PrototypeNetwork",
    "TreeModel",
    "additive_model",
    "concept_bottleneck",
    "decision_tree",
    "prototype_network",
    "sparse_softmax",
]
