"""The ridge warm-up: the solution of an independent library, the penalty that validation asks for, and who cannot have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from transformers import LlamaConfig, LlamaForCausalLM

from bids_brainlm.errors import ConfigError
from bids_brainlm.language.render import Rendered
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.models.tokenizers import Marked, TokenBasis
from bids_brainlm.registry import objectives, tokenizers
from bids_brainlm.training.batches import Corpus
from bids_brainlm.training.closed_form import PENALTIES, solve

T, F, D, K = 2, 5, 12, 2
TARGET = objectives.get("answer_mean_mse")


def model(basis: TokenBasis | None = None, **options: Any) -> BrainLM:
    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=D, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    ).eval()
    given = {"kind": "joint", "layers": 0, "lift": basis is not None, **options}
    tokenizer = tokenizers.get("mlp")(n_rows=T, labels=np.zeros(F, np.int32), width=D, basis=basis, **given)
    return BrainLM(llm, torch.nn.Identity(), Marked(tokenizer, torch.zeros(D)))


def items(n: int, seed: int) -> tuple[Rendered, ...]:
    """A start, four slots, and an answer of three tokens."""
    rng, place = np.random.default_rng(seed), np.arange(8)
    return tuple(
        Rendered(rng.integers(0, 40, 8), (place >= 5) & (rng.random() < 0.9), (place > 0) & (place < 5)) for _ in range(n)
    )


def corpus(n: int, seed: int, told: float, whole: BrainLM) -> Corpus:
    """Responses that are `told` times a linear function of the target, and noise."""
    rendered = items(n, seed)
    table = whole.llm.get_input_embeddings().weight.detach().numpy()
    answers = np.stack([table[item.ids[5:]].mean(0) for item in rendered])
    mixing = np.random.default_rng(7).standard_normal((D, T * F))
    noise = np.random.default_rng(seed + 1).standard_normal((n, T * F))
    rows = (told * answers @ mixing / answers.std() + noise).astype(np.float32).reshape(n, T, F) + 3
    return Corpus(tuple((item,) for item in rendered), rows.__getitem__)


def arrays(whole: BrainLM, of: Corpus) -> tuple[np.ndarray, np.ndarray]:
    kept = [i for i, (item,) in enumerate(of.renderings) if item.train.any()]
    table = whole.llm.get_input_embeddings().weight.detach().numpy()
    targets = np.stack([table[of.renderings[i][0].ids[5:]].mean(0) for i in kept])
    return of.gather(np.array(kept)).reshape(len(kept), -1), targets  # type: ignore[misc]


@pytest.mark.parametrize("n", [60, 8])
def test_it_is_the_ridge_solution_of_another_library(n: int) -> None:
    whole = model()
    train, held_out = corpus(n, 1, 1.0, whole), corpus(30, 2, 1.0, whole)
    penalty = solve(whole, TARGET, train, held_out, 7)
    features, targets = arrays(whole, train)
    centred = features - features.mean(0)
    unit = np.linalg.eigvalsh(centred @ centred.T if n < T * F else centred.T @ centred).mean()
    other = Ridge(alpha=penalty * unit).fit(features, targets)
    new, _ = arrays(whole, held_out)
    tokens = whole.bare_tokens(torch.from_numpy(new.reshape(-1, T, F))).detach().numpy()
    assert tokens.shape[1:] == (K, D)
    np.testing.assert_allclose(tokens[:, 0], tokens[:, 1])
    np.testing.assert_allclose(tokens[:, 0], other.predict(new), atol=2e-6)


def test_the_penalty_is_the_one_that_validation_asks_for() -> None:
    whole = model()
    clear = solve(whole, TARGET, corpus(200, 1, 50.0, whole), corpus(80, 2, 50.0, whole), 50)
    noise = solve(whole, TARGET, corpus(200, 1, 0.0, whole), corpus(80, 2, 0.0, whole), 50)
    assert clear < 0.1
    assert noise > 10
    # With noise alone every token is the mean target.
    tokens = whole.bare_tokens(torch.from_numpy(corpus(5, 9, 0.0, whole).gather(np.arange(5))))  # type: ignore[misc]
    mean = arrays(whole, corpus(200, 1, 0.0, whole))[1].mean(0)
    np.testing.assert_allclose(tokens.detach().numpy()[:, 0], np.tile(mean, (5, 1)), atol=2e-3)


def test_no_other_penalty_has_a_smaller_validation_loss() -> None:
    whole = model()
    train, held_out = corpus(40, 1, 0.7, whole), corpus(40, 2, 0.7, whole)
    best = solve(whole, TARGET, train, held_out, 50)
    (features, targets), (new, wanted) = arrays(whole, train), arrays(whole, held_out)
    unit = np.linalg.eigvalsh(np.cov(features.T, bias=True) * len(features)).mean()
    losses = [((Ridge(alpha=float(a) * unit).fit(features, targets).predict(new) - wanted) ** 2).sum() for a in PENALTIES]
    assert best == pytest.approx(float(PENALTIES[int(np.argmin(losses))]))


def test_a_token_basis_is_ended_in() -> None:
    rng = np.random.default_rng(0)
    axes = torch.from_numpy(np.linalg.qr(rng.standard_normal((D, 4)))[0].T.astype(np.float32).copy())
    basis = TokenBasis(torch.ones(D), axes, torch.tensor([4.0, 3.0, 2.0, 1.0]))
    whole, plain = model(basis), model()
    train, held_out = corpus(90, 1, 2.0, plain), corpus(40, 2, 2.0, plain)
    solve(whole, TARGET, train, held_out, 50)
    tokens = whole.bare_tokens(torch.from_numpy(held_out.gather(np.arange(40)))).detach()  # type: ignore[misc]
    apart = tokens[:, 0] - 1
    np.testing.assert_allclose(apart, apart @ axes.T @ axes, atol=1e-5)
    known = [i for i, (item,) in enumerate(held_out.renderings) if item.train.any()]
    right = torch.from_numpy(arrays(plain, held_out)[1]) - 1
    # In the span of the basis it tells what the plain one tells.
    assert np.corrcoef((apart[known] @ axes.T)[:, 0], (right @ axes.T)[:, 0])[0, 1] > 0.7


def test_who_cannot_have_it_is_told_why() -> None:
    whole = model(layers=1)
    train = corpus(20, 1, 1.0, whole)
    with pytest.raises(ValueError, match="JointMLP without hidden layers"):
        solve(whole, TARGET, train, train, 10)
    with pytest.raises(ConfigError, match="points somewhere"):
        solve(model(), objectives.get("cross_entropy"), train, train, 10)
    with pytest.raises(ConfigError, match="validation examples, and there are none"):
        solve(model(), TARGET, train, Corpus(()), 10)
