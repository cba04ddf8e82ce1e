"""The three loss terms of "Unlearning via Model Merging" (arXiv 2503.21088), as pure functions of tensors.

Total = npo_weight * NPO(forget) + gdr_weight * GDR(retain) + klr_weight * KLR(retain). The released code computes
NPO on token means and KLR over padding; both are named choices here (`npo_reduction`, `klr_positions`).
Each function sees one micro-batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from unlearn_core.encoding import IGNORED


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log p of each labelled token: logits (B, T, V), labels (B, T) -> (B, T-1) in nats, 0 where not labelled.

    Column t belongs to the label at t + 1, which the logits at t predict.
    """
    mask = labelled(labels)
    chosen = F.cross_entropy(logits[:, :-1][mask].float(), labels[:, 1:][mask], reduction="none")
    return torch.zeros(mask.shape, device=logits.device).masked_scatter(mask, chosen)


def labelled(labels: torch.Tensor) -> torch.Tensor:
    """Mask of the labelled positions, aligned with `token_nll`: (B, T) -> (B, T-1) bool."""
    return labels[:, 1:] != IGNORED


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


def klr(logits: torch.Tensor, log_probs_reference: torch.Tensor) -> torch.Tensor:
    """KL(reference || model) on retain, mean over the N chosen positions of the micro-batch.

    logits (N, V), log_probs_reference (N, V) normalised -> scalar in nats per position.
    """
    log_probs = logits.float().log_softmax(-1)
    total = F.kl_div(log_probs, log_probs_reference.float(), log_target=True, reduction="sum")
    return total / max(len(logits), 1)


def klr_positions(labels: torch.Tensor, attention_mask: torch.Tensor, choice: str) -> torch.Tensor:
    """Positions whose next-token distributions KLR compares, (B, T) bool.

    "answer": those that predict an answer token; "real": all real tokens; "padded": every position, padding too
    (released code, where short answers make it mostly padding).
    """
    if choice == "answer":
        return F.pad(labelled(labels), (0, 1), value=False)
    if choice == "real":
        return attention_mask.bool()
    if choice == "padded":
        return torch.ones_like(attention_mask, dtype=torch.bool)
    raise ValueError(f"klr positions {choice!r}: expected answer, real or padded")
