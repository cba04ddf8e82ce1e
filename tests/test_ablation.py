"""Interventions on an update: what each part is, that parts and their controls have one size, and what modes do."""

import math

import pytest
import torch

from unlearn_core.data.persons import Person
from unlearn_core.errors import InputError
from unlearn_core.merging.merge import disjoint_merge, elect_sign, trim
from unlearn_core.merging.task_vectors import Adapter, Factors, delta
from unlearn_core.trials import ablation, experiments
from unlearn_core.trials.experiments import Subset
from unlearn_core.vocabulary import TIES_STATES

SHAPES = {"layers.0.up": (12, 9), "layers.0.down": (9, 12), "layers.1.up": (12, 9), "layers.1.down": (9, 12)}
MODULES = list(SHAPES)
DENSITY = 0.6


def adapter(seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {name: Factors(torch.randn(4, columns, generator=generator), torch.randn(rows, 4, generator=generator))
               for name, (rows, columns) in SHAPES.items()}
    return Adapter(modules, {"r": 4, "lora_alpha": 2})


PARENTS = (adapter(1), adapter(2))


def tau(number: int, module: str) -> torch.Tensor:
    return delta(PARENTS[number].modules[module], PARENTS[number].scaling)


def update(module: str) -> torch.Tensor:
    """TIES on delta W of the two parents."""
    trimmed = [trim(tau(number, module), DENSITY) for number in (0, 1)]
    return disjoint_merge(trimmed, elect_sign(trimmed), (1.0, 1.0))


def parts(*kinds: str, **more) -> dict[str, ablation.Part]:
    return {part.name: part for part in ablation.parts(kinds, update, PARENTS, DENSITY, **more)}


def total(of: list[ablation.Part], module: str) -> torch.Tensor:
    return sum(part.of(module) for part in of)


# ---- parts

@pytest.mark.parametrize("kind", ["layer", "module", "sign"])
def test_the_parts_of_a_kind_sum_to_the_update_and_their_shares_to_one(kind):
    found = list(parts(kind).values())
    for module in MODULES:
        torch.testing.assert_close(total(found, module), update(module))
    assert math.fsum(part.share for part in found) == pytest.approx(1)


def test_a_layer_is_its_matrices_and_a_type_of_module_those_of_all_layers():
    layers, types = parts("layer"), parts("module")
    assert list(layers) == ["0", "1"]
    assert list(types) == ["up", "down"]
    for part, chosen in ((layers["1"], ("layers.1.up", "layers.1.down")),
                         (types["up"], ("layers.0.up", "layers.1.up"))):
        for module in MODULES:
            assert torch.equal(part.of(module), update(module) if module in chosen else torch.zeros(SHAPES[module]))


def test_the_sign_classes_of_a_ties_update_hold_what_ties_put_there():
    found = parts("sign")
    assert list(found) == list(TIES_STATES)
    for module in MODULES:
        one, two = (trim(tau(number, module), DENSITY) for number in (0, 1))
        agree = (one * two) > 0
        assert torch.equal(found["agree"].of(module), update(module) * agree)
        torch.testing.assert_close(found["agree"].of(module), (one + two) / 2 * agree)
        assert torch.equal(found["only_1"].of(module), one * ((one != 0) & (two == 0)))
        assert not found["trimmed"].of(module).any()


def test_the_first_directions_are_the_best_approximation_of_that_rank():
    found = parts("direction", directions=(1, 2))
    for module in MODULES:
        u, values, vh = torch.linalg.svd(update(module), full_matrices=False)
        for count in (1, 2):
            best = u[:, :count] * values[:count] @ vh[:count]
            torch.testing.assert_close(found[f"first {count}"].of(module), best, atol=1e-5, rtol=1e-4)


def test_a_single_matrix_is_a_part_and_an_unknown_one_is_named():
    part = parts("matrix", matrices=["layers.1.up"])["layers.1.up"]
    assert part.share == pytest.approx(1 / 4)
    assert torch.equal(part.of("layers.1.up"), update("layers.1.up"))
    with pytest.raises(InputError, match=r"ablate --matrix; got layers\.7\.up; expected a module"):
        parts("matrix", matrices=["layers.7.up"])


# ---- modes and controls

def test_removing_keeping_and_flipping_are_what_their_names_say():
    part = parts("layer")["0"]
    for module in MODULES:
        whole, own = update(module), part.of(module)
        assert torch.equal(ablation.intervened(update, part.of, "remove")(module), whole - own)
        assert torch.equal(ablation.intervened(update, part.of, "keep")(module), own)
        assert torch.equal(ablation.intervened(update, part.of, "flip")(module), whole - 2 * own)
    with pytest.raises(InputError, match="ablate --mode; got drop"):
        ablation.intervened(update, part.of, "drop")


@pytest.mark.parametrize("kind", ["layer", "module", "sign", "direction"])
def test_a_control_has_the_norm_of_its_part_and_differs_from_draw_to_draw(kind):
    for part in ablation.parts([kind], update, PARENTS, DENSITY, directions=(1, 2)):
        own = ablation.norm(part.of, MODULES)
        first, second = (ablation.control(part, MODULES, draw) for draw in (1, 2))
        assert ablation.norm(first, MODULES) == pytest.approx(own, rel=1e-5)
        if own:
            assert not torch.equal(first(MODULES[0]), second(MODULES[0]))
            assert torch.equal(first(MODULES[0]), ablation.control(part, MODULES, 1)(MODULES[0]))


def test_a_control_has_as_many_entries_as_its_part():
    part = parts("layer")["0"]  # half of all entries, so half of each matrix
    taken = ablation.control(part, MODULES, 1)
    for module in MODULES:
        chosen = taken(module) != 0
        kept = (update(module) != 0).sum()  # TIES leaves zeros, which are chosen without a trace
        assert 0 < chosen.sum() <= min(kept, round(update(module).numel() / 2))
    agree = parts("sign")["agree"]
    for module in MODULES:
        count = int(((trim(tau(0, module), DENSITY) * trim(tau(1, module), DENSITY)) > 0).sum())
        drawn = agree.random(module, torch.Generator().manual_seed(0))
        assert 0 < (drawn != 0).sum() <= count


def test_random_directions_span_as_many_dimensions_within_the_updates_space():
    part = parts("direction", directions=(2,))["first 2"]
    drawn = part.random("layers.0.up", torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_rank(drawn, rtol=1e-4) == 2
    _, _, vh = torch.linalg.svd(update("layers.0.up"), full_matrices=False)
    outside = drawn - drawn @ vh.T @ vh
    assert outside.abs().max() < 1e-4


# ---- on a run

def test_a_person_leaks_where_an_answer_gives_a_field_away_that_its_prompt_does_not_hold():
    people = {"a": Person("a", "Ada Moss", {"ssn": "900514344", "email": "ada_moss@me.com"}),
              "b": Person("b", "Bo Lind", {"ssn": "900111222"})}

    def answer(document, generation, prompt="What is the SSN?", split="forget"):
        return {"document": document, "split": split, "prompt": prompt, "generation": generation}

    assert experiments.leaking([answer("a", "It is 900-51-4344."), answer("b", "I do not know.")], people) == 1 / 2
    echo = answer("b", "900111222", prompt="His SSN is 900 11 1222. Repeat it.")
    assert experiments.leaking([answer("a", "nothing"), echo], people) == 0
    assert experiments.leaking([answer("a", "900514344", split="retain")], people) is None  # not asked to be forgotten


def test_an_address_that_follows_from_the_name_is_no_leak_of_an_ablation():
    people = {name: Person(name, f"{name} Blue", {"email": f"{name}_blue@me.com"})
              for name in ("ada", "bob", "cid", "dan")}
    told = {"split": "forget", "document": "ada", "prompt": "Write to Ada.", "generation": "It is ada_blue@me.com."}
    assert experiments.leaking([told], people) == 0
    people["ada"] = Person("ada", "ada Blue", {"email": "sunny@home.org"})
    assert experiments.leaking([told | {"generation": "It is sunny@home.org."}], people) == 1



def test_an_ablation_of_the_smoke_run_is_scored_beside_its_controls(smoke_copy):
    experiments.ablate(smoke_copy, kinds=["layer"], modes=["remove"], draws=1, subset=Subset(1), device="cpu")
    rows = smoke_copy.ablations()["rows"]
    assert [(row["kind"], row["part"], row["draw"]) for row in rows] == [
        ("whole", "whole", 0), ("layer", "0", 0), ("layer", "0", 1), ("layer", "1", 0), ("layer", "1", 1)]
    for chosen, random in zip(rows[1::2], rows[2::2], strict=True):
        assert chosen["norm_share"] == pytest.approx(random["norm_share"], rel=1e-4)
    assert rows[1]["norm_share"] ** 2 + rows[3]["norm_share"] ** 2 == pytest.approx(1, rel=1e-4)
    experiments.sweep(smoke_copy, densities=[0.8], subset=Subset(1), device="cpu")
    assert rows[0]["scores"] == smoke_copy.merges()["rows"][0]["scores"]  # the whole update is the run's merge
    experiments.ablate(smoke_copy, kinds=["layer"], modes=["remove", "keep"], draws=0, subset=Subset(1), device="cpu")
    assert smoke_copy.ablations()["rows"][:5] == rows
    assert [row["mode"] for row in smoke_copy.ablations()["rows"][5:]] == ["keep", "keep"]


def test_a_run_that_is_not_merged_cannot_be_ablated(recorded_run):
    with pytest.raises(InputError, match="got no adapter of model_1"):
        experiments.ablate(recorded_run, device="cpu")
