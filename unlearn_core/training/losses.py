"""Loss terms as pure functions of tensors: the three of "Unlearning via Model Merging" (arXiv 2503.21088), and others.

Total = npo_weight * NPO(forget) + gdr_weight * GDR(retain) + klr_weight * KLR(retain) + other terms by their weights.
The released code computes NPO on token means and KLR over padding; both are named choices here (`npo_reduction`,
`klr_positions`). Each function sees one micro-batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def token_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the masked positions of the whole micro-batch: (B, T), (B, T) -> scalar; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def npo(nll: torch.Tensor, nll_reference: torch.Tensor, mask: torch.Tensor, beta: float,
        reduction: str) -> torch.Tensor:
    """Negative preference optimisation: mean of -(2 / beta) log sigmoid(beta * Delta), Delta = NLL - NLL_reference.

    nll, nll_reference: (B, T) nats per forget token, mask: (B, T). What Delta is:
    "sequence_sum": the sum over a sequence, one term per row (Zhang et al. 2024, arXiv 2404.05868);
    "batch_mean": the token mean of the whole micro-batch, one term (released code of arXiv 2503.21088);
    "token": each token, averaged over tokens.
    At theta = reference the value is (2 / beta) ln 2; it falls to 0 as the answers are forgotten.
    """
    difference = (nll - nll_reference) * mask
    if reduction == "sequence_sum":
        return (-2 / beta * F.logsigmoid(beta * difference.sum(1))).mean()
    if reduction == "batch_mean":
        return -2 / beta * F.logsigmoid(beta * token_mean(difference, mask))
    if reduction == "token":
        return token_mean(-2 / beta * F.logsigmoid(beta * difference), mask)
    raise ValueError(f"npo reduction {reduction!r}: expected sequence_sum, batch_mean or token")


def npo_brake(nll: torch.Tensor, nll_reference: torch.Tensor, mask: torch.Tensor, beta: float,
              reduction: str) -> torch.Tensor:
    """How much of plain gradient ascent is left in NPO's gradient: mean of 2 sigmoid(-beta * Delta), scalar.

    1 at the reference, towards 0 as the answers are forgotten; Delta as in `npo`.
    """
    difference = (nll - nll_reference) * mask
    if reduction == "sequence_sum":
        return (2 * torch.sigmoid(-beta * difference.sum(1))).mean()
    if reduction == "batch_mean":
        return 2 * torch.sigmoid(-beta * token_mean(difference, mask))
    return token_mean(2 * torch.sigmoid(-beta * difference), mask)


def gdr(nll: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy on retain: mean of nll (B, T) over the answer tokens of the micro-batch."""
    return token_mean(nll, mask)


def klr(log_probs: torch.Tensor, log_probs_reference: torch.Tensor) -> torch.Tensor:
    """KL(reference || model) on retain, mean over the N chosen positions of the micro-batch.

    log_probs, log_probs_reference (N, V), both normalised -> scalar in nats per position.
    """
    total = F.kl_div(log_probs.float(), log_probs_reference.float(), log_target=True, reduction="sum")
    return total / max(len(log_probs), 1)


def klr_top_k(log_probs: torch.Tensor, log_probs_reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`klr` on k tokens of each position and all others as one, so a lower bound of it (log-sum inequality).

    log_probs (N, V) normalised; log_probs_reference, tokens (N, k): what the reference gives its likeliest tokens.
    """
    log_probs_reference = log_probs_reference.float()
    chosen = log_probs.float().gather(-1, tokens.long())
    total = (log_probs_reference.exp() * (log_probs_reference - chosen)).sum()
    if tokens.shape[-1] < log_probs.shape[-1]:
        rest, rest_reference = _rest(chosen), _rest(log_probs_reference)
        total = total + (rest_reference * (rest_reference.log() - rest.log())).sum()
    return total / max(len(log_probs), 1)


def _rest(log_probs: torch.Tensor) -> torch.Tensor:
    """What is left of probability 1 beside some tokens, at least a rounding error: (N, k) -> (N,)."""
    return (1 - log_probs.exp().sum(-1)).clamp(min=torch.finfo(torch.float32).eps)


def gradient_ascent(nll: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """GA: minus the cross-entropy on forget, without bound; nll (B, T) over the answer tokens of the micro-batch.

    With GDR it is GradDiff (Liu et al. 2022, arXiv 2203.12817), with KLR "KL minimisation" (Maini et al. 2024,
    arXiv 2401.06121).
    """
    return -token_mean(nll, mask)


def simnpo(nll: torch.Tensor, mask: torch.Tensor, beta: float) -> torch.Tensor:
    """NPO without a reference, on length-normalised sequences: mean of -(2 / beta) log sigmoid(beta * NLL / tokens).

    nll, mask (B, T) (Fan et al. 2024, arXiv 2410.07163, with margin 0).
    """
    per_token = (nll * mask).sum(1) / mask.sum(1).clamp(min=1)
    return (-2 / beta * F.logsigmoid(beta * per_token)).mean()


def uniform(log_probs: torch.Tensor) -> torch.Tensor:
    """KL(uniform || model) at forget's answer positions: log_probs (N, V) normalised -> scalar in nats per position.

    0 where every token is equally likely (Yuan et al. 2024, arXiv 2410.08109: "maximise entropy").
    """
    return (-log_probs.mean(-1) - math.log(log_probs.shape[-1])).mean()
