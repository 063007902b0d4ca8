"""What a user types reaches Hydra as she meant it, or is refused with what to type instead."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier_training.config.compose import (
    compose_config,
    first_of_each,
    make_strict,
    parse,
    set_to,
)
from classifier_training.errors import ConfigError


def refusal(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make_strict(list(overrides))
    return caught.value


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    "path",
    ["it's", "/a,b", "/ä ö", "/day=1/x", "/a(1)", "~/images", "a]b", 'say "hi"', "x{y"],
)
def test_a_path_that_needs_quotes_is_answered_with_the_quoted_command(path: str) -> None:
    fix = refusal(f"data.data_root={path}").fix

    (typed,) = shlex.split(fix.rsplit(": ", 1)[1])
    assert compose_config(make_strict([typed])).data.data_root == path


@pytest.mark.promise("C1")
@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_a_written_override_gives_back_its_text(text: str) -> None:
    if "${" in text:
        return  # a reference, which OmegaConf resolves
    (override,) = parse([set_to("hydra.run.dir", text)])

    assert str(override.value()) == text


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    "sweep", ["seed=1,2", "seed=range(3)", "model=glob(*)", "seed=choice(1,2)"]
)
def test_several_values_without_multirun_are_refused(sweep: str) -> None:
    error = refusal(sweep)

    assert sweep in error.what
    assert "--multirun" in error.fix


@pytest.mark.promise("C1")
def test_every_swept_value_is_checked_before_the_first_job() -> None:
    strict = make_strict(["seed=1,2,3", "model=resnet18,resnet34", "resume=auto"], is_multirun=True)

    jobs = first_of_each(strict)

    assert {value for job in jobs for value in job} == {
        "++seed=1",
        "++seed=2",
        "++seed=3",
        "model=resnet18",
        "model=resnet34",
        "++resume=auto",
    }
    assert all(len(job) == 3 for job in jobs)


@pytest.mark.promise("C1")
@pytest.mark.parametrize("sweep", ["model=glob(*)", "seed=interval(0,1)"])
def test_values_that_only_the_sweeper_knows_are_left_to_it(sweep: str) -> None:
    assert first_of_each(make_strict([sweep, "seed=1"], is_multirun=True)) == [["++seed=1"]]


@pytest.mark.promise("C1")
def test_a_long_sweep_does_not_delay_its_first_job() -> None:
    strict = make_strict(["seed=range(100000)"], is_multirun=True)

    assert len(first_of_each(strict)) < 100
