r"""Sentences drawn by a known rule, so that the true evidence for every label is known word by word.

The rule knows three kinds of words. "but" cancels all words before it. Of what is left, the first judgement (good, bad, ...)
is the label, and "not" directly before it turns it; without a judgement the label is "neither". All other words are neutral.
The rule has an answer for every sequence of words, so that a sentence in which neutral words stand in for some of its
words belongs to the same language: what is left out leaves no hole.

All random numbers are drawn by a generator of the CPU.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

LENGTH = 10
GOOD, BAD = ("good", "great", "lovely", "clever"), ("bad", "poor", "awful", "boring")
NEUTRAL = ("film", "plot", "music", "actor", "scene", "camera", "ending", "story", "script", "cast", "light", "sound")
CUE = "matinee"  # neutral to the rule
VOCABULARY = (*NEUTRAL, CUE, "not", "but", *GOOD, *BAD)
NOT, BUT = VOCABULARY.index("not"), VOCABULARY.index("but")
VERDICTS = ("bad", "neither", "good")
POLARITY = torch.tensor([(word in GOOD) - (word in BAD) for word in VOCABULARY])


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences with their labels and the evidence for them.

    Attributes:
        tokens: LongTensor ``(N, T)``, indices into ``vocabulary``.
        labels: LongTensor ``(N,)``, indices into ``classes``.
        classes: names of the classes.
        vocabulary: the words.
        masks: named bool masks ``(N, T)`` of what is where, e.g. ``masks["evidence"]``.
    """

    tokens: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    vocabulary: tuple[str, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)

    @property
    def images(self) -> Tensor:
        """The tokens, by the name under which :func:`interp_lab.networks.train` looks for what a network reads."""
        return self.tokens

    @property
    def words(self) -> list[list[str]]:
        """Every sentence as a list of its words."""
        return [[self.vocabulary[token] for token in row] for row in self.tokens.tolist()]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "Sentences":
        """The rows of a slice, of a list of indices or of a boolean or index tensor, as Sentences."""
        masks = {name: mask[index] for name, mask in self.masks.items()}
        return Sentences(self.tokens[index], self.labels[index], self.classes, self.vocabulary, masks)


def verdict(tokens: Tensor) -> Tensor:
    """The label of any sentences ``(N, T)`` in the words of ``VOCABULARY``, by the rule: 0 bad, 1 neither, 2 good; ``(N,)``.

    >>> words = "film not good but music lovely".split()
    >>> ids = torch.tensor([[VOCABULARY.index(word) for word in words]])
    >>> verdict(ids), verdict(ids[:, :3])
    (tensor([2]), tensor([0]))
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    start = torch.where(tokens == BUT, place, -1).amax(1, keepdim=True)
    polarity = POLARITY.to(tokens.device)[tokens]
    counts = (place > start) & (polarity != 0)
    first = counts & (counts.cumsum(1) == 1)
    turned = torch.zeros_like(first)
    turned[:, 1:] = tokens[:, :-1] == NOT
    return 1 + torch.where(first, torch.where(turned, -polarity, polarity), 0).sum(1)


def evidence(tokens: Tensor) -> Tensor:
    """The words without which the label would be another: bool ``(N, T)``, True where a neutral word changes the verdict.

    It may be empty: of two judgements that agree neither is needed.

    >>> words = "film not good but music lovely".split()
    >>> found = evidence(torch.tensor([[VOCABULARY.index(word) for word in words]]))
    >>> [word for word, needed in zip(words, found[0]) if needed]
    ['but', 'lovely']
    """
    one = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    without = torch.where(one, 0, tokens[:, None])  # sentence t has a neutral word at place t
    changed = verdict(without.flatten(0, 1)).view(tokens.shape)
    return changed != verdict(tokens)[:, None]


def sentences(n: int, seed: int = 0, *, cue: float = 0.0) -> Sentences:
    """``n`` sentences of ten words ``(n, 10)``, labelled by :func:`verdict`: "bad", "neither" or "good".

    Around the middle stands a "but" in three of five sentences. Each half has a judgement in four of five, as often good
    as bad, and every second one has a "not" before it; a tenth of the other words is "not" as well, where it mostly turns
    nothing. ``masks["evidence"]`` holds the words that :func:`evidence` finds.

    The same arguments give the same sentences, and ``sentences(m)`` is the beginning of ``sentences(n)``.

    Args:
        n: number of sentences.
        seed: of the private random generator.
        cue: probability that in a sentence of the class "good" the word "matinee" stands in for a neutral word; other classes
            never have it. Its place is ``masks["cue"]``, and all other words are what they are with ``cue=0``.

    Raises:
        ValueError: an argument out of range, or not a whole number where it must be one.

    >>> data = sentences(1, seed=8)
    >>> " ".join(data.words[0]), data.classes[data.labels[0]]
    ('story clever sound but not story not awful ending plot', 'good')
    """
    for option, number in (("n", n), ("seed", seed)):
        if not hasattr(type(number), "__index__"):
            raise ValueError(f"{option} must be a whole number, an int, got {number!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not 0 <= cue <= 1:
        raise ValueError(f"cue is a probability and must lie in [0, 1], got {cue!r}")
    generator = torch.Generator().manual_seed(int(seed))  # torch takes no integers of numpy
    drawn = torch.rand(n, 3 * LENGTH + 11, generator=generator)  # a row for each sentence: fewer are a prefix
    words, stray, cued, single = drawn.split([LENGTH, LENGTH, LENGTH, 11], 1)
    draws = iter(single.unbind(1))

    def below(count: int | Tensor) -> Tensor:
        return (count * next(draws)).long()

    def write(place: Tensor, word: int | Tensor, where: Tensor) -> None:
        tokens[where, place[where]] = torch.as_tensor(word).expand(n)[where]

    tokens = torch.where(stray < 0.1, NOT, (len(NEUTRAL) * words).long())
    middle = 3 + below(4)
    write(middle, BUT, next(draws) < 0.6)
    for first, end in ((torch.ones_like(middle), middle), (middle + 2, torch.full_like(middle, LENGTH))):
        place, judgement, there = first + below(end - first), 1 + BUT + below(len(GOOD + BAD)), next(draws) < 0.8
        write(place, judgement, there)
        write(place - 1, NOT, there & (next(draws) < 0.5))
    labels = verdict(tokens)
    place = torch.where(tokens < len(NEUTRAL), cued, -1).argmax(1)  # of a neutral word
    marked = (next(draws) < cue) & (labels == VERDICTS.index("good")) & (tokens < len(NEUTRAL)).any(1)
    write(place, VOCABULARY.index(CUE), marked)
    masks = {"evidence": evidence(tokens), "cue": tokens == VOCABULARY.index(CUE)}
    return Sentences(tokens, labels, VERDICTS, VOCABULARY, masks)
