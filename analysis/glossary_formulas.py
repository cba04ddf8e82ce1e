"""Formulas in LaTeX of what the glossary explains, by the keys of its entries; one for each, wherever it is shown."""

from __future__ import annotations

REGURGITATION = r"\frac{1}{n}\sum_{i=1}^{n}\frac{\text{LCS}(y_i, \hat y_i)}{|y_i|}"
KNOWLEDGE = r"\frac{1}{n}\sum_{i=1}^{n}\mathbf{1}[\hat y_i = y_i]"
TOTAL = (r"\mathcal{L} = \lambda_{\text{NPO}}\,\mathcal{L}_{\text{NPO}}"
         r" + \lambda_{\text{GDR}}\,\mathcal{L}_{\text{GDR}} + \lambda_{\text{KLR}}\,\mathcal{L}_{\text{KLR}}")
NPO = (r"\mathcal{L}_{\text{NPO}} = -\frac{2}{\beta}\log\sigma(\beta\Delta),\qquad"
       r"\Delta = \text{NLL}_\theta - \text{NLL}_{\text{ref}}")
LORA = r"\Delta W = \frac{\alpha}{r}\,B A"
TIES = (r"m_j = \frac{\sum_i w_i\,\tau_{ij}\,\mathbf{1}[\text{sign}(\tau_{ij}) = \gamma_j]}"
        r"{\sum_i \mathbf{1}[\text{sign}(\tau_{ij}) = \gamma_j]},\qquad \gamma_j = \text{sign}\sum_i \tau_{ij}")

WORDS = {
    "npo": NPO,
    "gdr": r"\mathcal{L}_{\text{GDR}} = \frac{1}{T}\sum_{t=1}^{T} -\log p_\theta(y_t \mid x, y_{<t})",
    "klr": (r"\mathcal{L}_{\text{KLR}} = \frac{1}{N}\sum_{t=1}^{N}\sum_{v} p_{\text{ref}}(v)\,"
            r"\log\frac{p_{\text{ref}}(v)}{p_\theta(v)}"),
    "ga": r"\mathcal{L}_{\text{GA}} = -\text{NLL}_\theta",
    "simnpo": (r"\mathcal{L}_{\text{SimNPO}} = -\frac{2}{\beta}"
               r"\log\sigma\left(\frac{\beta}{|y|}\,\text{NLL}_\theta\right)"),
    "nll": r"\text{NLL} = -\sum_t \log p(y_t \mid x, y_{<t})",
    "delta": r"\Delta = \text{NLL}_\theta - \text{NLL}_{\text{ref}}",
    "brake": r"2\,\sigma(-\beta\Delta) = -\frac{\partial\mathcal{L}_{\text{NPO}}}{\partial\Delta}",
    "adapter": LORA,
    "ties": TIES,
    "norm_ratio": (r"\frac{\lVert\Delta W_{\text{merged}}\rVert}"
                   r"{\frac{1}{2}\left(\lVert\Delta W_1\rVert + \lVert\Delta W_2\rVert\right)}"),
    "stable_rank": r"\lVert\Delta W\rVert_F^2 \,/\, \lVert\Delta W\rVert_2^2",
    "rouge_l_recall": r"\frac{\text{LCS}(y, \hat y)}{|y|}",
    "privleak": r"100\cdot\frac{(1 - \text{AUC}) - (1 - \text{AUC}_{\text{control}})}{1 - \text{AUC}_{\text{control}}}",
    "leak_k": r"1 - \binom{n-c}{k}\Big/\binom{n}{k}",
    "extraction_strength": r"1 - \frac{k}{T},\qquad k:\ \text{from here on every token is the likeliest}",
    "depth_score": (r"\frac{\sum_\ell D1_\ell\,\text{clip}(D2_\ell / D1_\ell,\, 0,\, 1)}{\sum_\ell D1_\ell}"),
}
SCORES = {
    "aggregate": r"\frac{1}{3}\left(\text{Task Aggregate} + \text{MIA score} + \text{MMLU}\right)",
    "task_aggregate": (r"\frac{12}{\sum_{i=1}^{12} 1/x_i},\qquad x_i = 1 - s_i \text{ on forget},"
                       r"\; s_i \text{ on retain}"),
    "mia_score": r"1 - 2\,|\text{AUC} - 0.5|",
    "mia_auc": (r"\frac{1}{mn}\sum_{i=1}^{m}\sum_{j=1}^{n}\left(\mathbf{1}[\ell_i < \ell'_j]"
                r" + \tfrac{1}{2}\,\mathbf{1}[\ell_i = \ell'_j]\right)"),
    "mmlu": r"\frac{\text{questions answered rightly}}{\text{questions asked}}",
}
# Settings that stand in a formula of a word.
SETTINGS = {
    "unlearn.npo_weight": TOTAL, "unlearn.gdr_weight": TOTAL, "unlearn.klr_weight": TOTAL,
    "unlearn.beta": NPO, "unlearn.npo_reduction": NPO, "unlearn.ga_weight": WORDS["ga"],
    "unlearn.simnpo_weight": WORDS["simnpo"], "unlearn.simnpo_beta": WORDS["simnpo"],
    "unlearn.uniform_weight": (r"\text{KL}(u \,\Vert\, p_\theta) = -\frac{1}{|V|}\sum_v \log p_\theta(v) - \log|V|"),
    "unlearn.klr_positions": WORDS["klr"], "lora.r": LORA, "lora.alpha": LORA, "merge.density": TIES,
    "merge.weights": TIES,
}
