"""The networks that read sentences: their accuracy, and attributions taken to the embeddings."""

import pytest
import torch
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, attention_rollout, deeplift, integrated_gradients, lrp, shapley_values
from interp_lab import sentence_networks as networks
from interp_lab.data import sentences
from interp_lab.networks import accuracy


@pytest.mark.parametrize("name", networks.TRAINED)
def test_the_shipped_networks_keep_their_accuracy(name):
    model, test = networks.load(name), sentences(2000, seed=99)
    assert not model.training
    assert accuracy(model, test) > 0.99
    twice, cued = networks.load(name), sentences(2000, seed=99, cue=1.0)
    assert all(map(torch.equal, model.state_dict().values(), twice.state_dict().values()))
    assert accuracy(model, cued) > 0.9, "a word that it has never seen misleads it"


@pytest.mark.slow
def test_an_lstm_learns_the_rule(seed, verdict):
    model = networks.trained("sentences_lstm", sentences(4000, seed=seed), seed)
    verdict("accuracy", accuracy(model, sentences(1000, seed=99)), above=0.9)


def test_embeddings_are_a_picture_that_is_one_pixel_high():
    words = networks.Words(5, 3)
    tokens = torch.tensor([[0, 4, 4, 1]])
    assert words(tokens).shape == (1, 3, 1, 4)
    assert_close(words(tokens)[0, :, 0, 1], words.weight[4])


@pytest.mark.parametrize("name", networks.TRAINED)
def test_attributions_are_taken_to_the_embeddings(name):
    model, data = networks.load(name).double(), sentences(8, seed=3)
    with pytest.raises(ValueError, match=r"for token ids explain their embeddings, x = model.embedding\(ids\)"):
        lrp(model, data.tokens)
    x, neutral = (model[0](tokens).detach() for tokens in (data.tokens, torch.zeros_like(data.tokens)))
    with torch.no_grad():
        change = (model[1:](x) - model[1:](neutral)).gather(1, data.labels[:, None])[:, 0]
    total = {
        "DeepLIFT": deeplift(model[1:], x, data.labels, baseline=neutral).sum((1, 2, 3)),
        "integrated gradients": integrated_gradients(model[1:], x, data.labels, baseline=neutral, steps=256).sum(
            (1, 2, 3)
        ),
        "Shapley": shapley_values(
            model[1:], x, data.labels, baseline=neutral, players=torch.arange(10)[None]
        ).values.sum(1),
    }
    assert_close(total["DeepLIFT"], change)
    assert_close(total["Shapley"], change)
    assert_close(total["integrated gradients"], change, rtol=0.01, atol=0.05)
    assert lrp(model[1:], x, data.labels, rule="epsilon").abs().sum() > 0


def test_rollout_has_a_class_token_before_the_words():
    model, data = networks.load("sentences_transformer"), sentences(2)
    assert attention_rollout(model[1:], model[0](data.tokens).detach()).shape == (2, 11, 11)
    lstm = networks.load("sentences_lstm")
    with pytest.raises(UnsupportedModelError, match="no attention"):
        attention_rollout(lstm[1:], lstm[0](data.tokens).detach())


def test_an_unknown_name_lists_the_known_ones():
    for function in (networks.load, lambda name: networks.trained(name, sentences(8))):
        with pytest.raises(
            ValueError, match="no network 'gru' for sentences; there are sentences_transformer, sentences_lstm"
        ):
            function("gru")
