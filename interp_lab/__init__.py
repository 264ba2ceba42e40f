"""Interpretable deep learning: every method of the course, as short as its equation."""

from importlib import import_module

from . import _torchvision, antehoc, check, data, networks  # noqa: F401  # _torchvision mends what others import
from .antehoc import (
    BagOfLocalFeatures,
    additive_model,
    concept_bottleneck,
    decision_tree,
    prototype_network,
    sparse_softmax,
)
from .backprop.feature_maps import channels_first, tokens_to_maps
from .contract import UnsupportedModelError
from .evaluate.class_sensitivity import class_sensitivity
from .evaluate.coherence import bootstrap, box_masks, chance, coherence, pointing_game, relevance_mass, relevance_rank
from .evaluate.fragility import attack_attribution, top_k_overlap
from .evaluate.imputation import impute
from .evaluate.parts import part_scores
from .evaluate.randomisation import model_randomisation
from .evaluate.roar import kar, roar
from .evaluate.selectivity import selectivity
from .evaluate.similarity import similarity, spearman, ssim
from .explain_decision.attention import attention_rollout, gradient_x_attention
from .explain_decision.counterfactuals import counterfactual
from .explain_decision.deconvnet_and_guided_backprop import deconvnet, guided_backprop
from .explain_decision.deep_taylor import deep_taylor
from .explain_decision.deeplift import deeplift
from .explain_decision.grad_cam import grad_cam, guided_grad_cam
from .explain_decision.gradient_based import (
    gradient_x_input,
    integrated_gradients,
    interior_gradient,
    saliency,
    smoothgrad,
)
from .explain_decision.influence import TopInfluence, influence, trak
from .explain_decision.lrp import lrp
from .explain_decision.methods import METHODS
from .explain_decision.occlusion import occlusion
from .explain_decision.patterns import fit_patterns, pattern_attribution, pattern_net
from .explain_decision.rectgrad import rectgrad
from .explain_decision.rise import rise
from .explain_decision.shapley import shapley, shapley_values
from .explain_model import priors
from .explain_model.activation_maximisation import am_code, am_density, maximize_activation, total_variation
from .explain_model.concepts import tcav
from .explain_model.filters import filters
from .explain_model.projection import project_activation, project_top
from .explain_model.prototypes import mmd_critic
from .explain_model.surrogates.fidelity import fidelity
from .explain_model.surrogates.graph import surrogate_graph
from .explain_model.surrogates.linear import surrogate_linear
from .explain_model.surrogates.local import surrogate_local
from .explain_model.surrogates.queries import fresh_queries
from .explain_model.surrogates.segmentation import segment
from .explain_model.surrogates.tree import surrogate_tree
from .explain_model.top_activations import top_activations

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "BagOfLocalFeatures",
    "TopInfluence",
    "UnsupportedModelError",
    "additive_model",
    "am_code",
    "am_density",
    "antehoc",
    "attack_attribution",
    "attention_rollout",
    "bootstrap",
    "box_masks",
    "chance",
    "channels_first",
    "check",
    "class_sensitivity",
    "coherence",
    "concept_bottleneck",
    "counterfactual",
    "data",
    "decision_tree",
    "deconvnet",
    "deep_taylor",
    "deeplift",
    "fidelity",
    "filters",
    "fit_patterns",
    "fresh_queries",
    "grad_cam",
    "gradient_x_attention",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "impute",
    "influence",
    "integrated_gradients",
    "interior_gradient",
    "kar",
    "lrp",
    "maximize_activation",
    "mmd_critic",
    "model_randomisation",
    "networks",
    "occlusion",
    "part_scores",
    "pattern_attribution",
    "pattern_net",
    "plot",
    "pointing_game",
    "priors",
    "project_activation",
    "project_top",
    "prototype_network",
    "rectgrad",
    "relevance_mass",
    "relevance_rank",
    "rise",
    "roar",
    "saliency",
    "segment",
    "selectivity",
    "shapley",
    "shapley_values",
    "similarity",
    "smoothgrad",
    "sparse_softmax",
    "spearman",
    "ssim",
    "surrogate_graph",
    "surrogate_linear",
    "surrogate_local",
    "surrogate_tree",
    "tcav",
    "tokens_to_maps",
    "top_activations",
    "top_k_overlap",
    "total_variation",
    "trak",
]


def __getattr__(name: str):
    if name == "plot":  # on demand: it brings matplotlib along, which takes half a second
        return import_module(f"{__name__}.plot")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
