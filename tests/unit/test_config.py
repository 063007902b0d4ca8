"""A configuration is right as a whole, or refused with every problem it has."""

from __future__ import annotations

from functools import cache

import pytest
from omegaconf import OmegaConf

from classifier_training.config.compose import allowed_modules, compose_config, make_strict
from classifier_training.config.schema import Config
from classifier_training.config.validate import validate
from classifier_training.errors import EXIT_CONFIG, ConfigError, Problem


def check(*overrides: str, root: str = "train", config_dir: str | None = None) -> Config:
    """Compose and validate, as the command does before it imports torch."""
    given = ["data.data_root=/images", *overrides]
    composed = compose_config(
        make_strict(given, config_dir=config_dir), root=root, config_dir=config_dir
    )
    return validate(composed, allow_modules=allowed_modules(given))


def refusal(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check(*overrides)
    assert caught.value.exit_code == EXIT_CONFIG
    return caught.value


def only_problem(*overrides: str) -> Problem:
    problems = refusal(*overrides).problems
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def problem_of(override: str, key: str, table: list[tuple[str, str]]) -> Problem:
    """Return what is said about one row of a table.

    Rows about different keys are composed together: composing takes a moment, and they must all be
    listed anyway.
    """
    together: list[dict[str, str]] = []
    for row_override, row_key in table:
        for batch in together:
            if not any(f"{row_key}.".startswith(f"{known}.") for known in batch) and not any(
                f"{known}.".startswith(f"{row_key}.") for known in batch
            ):
                batch[row_key] = row_override
                break
        else:
            together.append({row_key: row_override})
    batch = next(batch for batch in together if batch.get(key) == override)
    return problems_of(tuple(batch.values()))[key]


@cache
def problems_of(overrides: tuple[str, ...]) -> dict[str, Problem]:
    return {problem.key: problem for problem in refusal(*overrides).problems}


TYPOS = [
    # what is typed, the key that is named, what the fix says
    ("data.bach_size=3", "data.bach_size", "did you mean data.batch_size?"),
    ("data.dataroot=x", "data.dataroot", "did you mean data.data_root?"),
    ("data.split.vall=0.1", "data.split.vall", "did you mean data.split.val?"),
    ("+data.num_worker=2", "data.num_worker", "did you mean data.num_workers?"),
    ("++data.clases=[a,b]", "data.clases", "did you mean data.classes?"),
    ("transforms.imagesize=64", "transforms.imagesize", "did you mean transforms.image_size?"),
    ("transforms.rezise=pad", "transforms.rezise", "did you mean transforms.resize?"),
    ("model.weigths=null", "model.weigths", "did you mean model.weights?"),
    ("+model.init_form=x", "model.init_form", "did you mean model.init_from?"),
    ("loss.label_smothing=0.1", "loss.label_smothing", "did you mean loss.label_smoothing?"),
    ("loss.class_weight=none", "loss.class_weight", "did you mean loss.class_weights?"),
    ("optimizer.learningrate=0.1", "optimizer.learningrate", "optimizer.learning_rate?"),
    ("optimizer.lr=0.1", "optimizer.lr", "did you mean optimizer.learning_rate?"),
    ("schedule.warmup_epoch=1", "schedule.warmup_epoch", "did you mean schedule.warmup_epochs?"),
    ("trainer.max_epoch=3", "trainer.max_epoch", "did you mean trainer.max_epochs?"),
    ("trainer.max-epochs=3", "trainer.max-epochs", "did you mean trainer.max_epochs?"),
    ("trainer.gpus=1", "trainer.gpus", "trainer has: accelerator, devices"),
    ("ema.decai=0.9", "ema.decai", "did you mean ema.decay?"),
    ("checkpoint.moniter=val/loss", "checkpoint.moniter", "did you mean checkpoint.monitor?"),
    ("export.opsett=18", "export.opsett", "did you mean export.opset?"),
    ("task.ckpt=x", "task.ckpt", "task has: checkpoint_path"),
    ("seeed=1", "seeed", "did you mean seed?"),
    ("Trainer.max_epochs=3", "Trainer", "did you mean trainer?"),
    ("modle=resnet18", "modle", "did you mean model?"),
    ("+foo=1", "foo", "the configuration has: seed, resume"),
    ("++foo.bar.baz=1", "foo", "remove it"),
    # the right key in the wrong place, or under the name that other tools give it
    ("batch_size=8", "batch_size", "did you mean data.batch_size?"),
    ("epochs=8", "epochs", "did you mean trainer.max_epochs?"),
    ("lr=0.1", "lr", "did you mean optimizer.learning_rate?"),
    ("imgsz=64", "imgsz", "did you mean transforms.image_size?"),
    ("data.resize=pad", "data.resize", "did you mean transforms.resize?"),
    ("num_classes=43", "num_classes", "the number is counted"),
    ("model.num_classes=43", "model.num_classes", "the number is counted"),
    ("callbacks.early_stoping=null", "callbacks.early_stoping", "callbacks.early_stopping?"),
    ("callbacks.early_stoping.patience=3", "callbacks.early_stoping", "callbacks.early_stopping?"),
    ("logging.wandb=null", "logging.wandb", "check the name"),
]


@pytest.mark.promise("C1")
@pytest.mark.parametrize(("override", "key", "fix"), TYPOS)
def test_a_key_that_does_not_exist_is_named_with_the_one_that_was_meant(
    override: str, key: str, fix: str
) -> None:
    problem = problem_of(override, key, [row[:2] for row in TYPOS])

    assert fix in problem.fix


@pytest.mark.promise("C1")
def test_a_single_typo_is_a_single_problem() -> None:
    assert only_problem("data.bach_size=3").key == "data.bach_size"
    assert only_problem("callbacks.early_stoping=null").key == "callbacks.early_stoping"


BAD_VALUES = [
    ("trainer.max_epochs=ten", "trainer.max_epochs", "'ten'", "integer"),
    ("trainer.max_epochs=10.0", "trainer.max_epochs", "10.0", "integer"),
    ("trainer.max_epochs=null", "trainer.max_epochs", "None", "integer"),
    ("trainer.max_epochs=0", "trainer.max_epochs", "0", "greater than or equal to 1"),
    ("seed=true", "seed", "True", "integer"),
    ("seed=-1", "seed", "-1", "greater than or equal to 0"),
    ('seed="1"', "seed", "'1'", "integer"),
    ("data.batch_size=0", "data.batch_size", "0", "greater than or equal to 1"),
    ("data.num_workers=-1", "data.num_workers", "-1", "greater than or equal to 0 or"),
    ("data.num_workers=many", "data.num_workers", "'many'", "integer or input should be 'auto'"),
    ("data.data_root=123", "data.data_root", "123", "string"),
    ("data.data_root=", "data.data_root", "''", "at least 1 character"),
    ("ckpt_path=", "ckpt_path", "''", "at least 1 character"),
    ("model.weights=", "model.weights", "''", "at least 1 character"),
    ("data.split=3", "data.split", "3", "dictionary"),
    ("data.split.test=1", "data.split.test", "1", "less than 1"),
    ("data.sampler=balanced", "data.sampler", "'balanced'", "'none', 'weighted' or 'sqrt'"),
    ("data.split.folds=1", "data.split.folds", "1", "greater than or equal to 2"),
    ("data.split.fold=-1", "data.split.fold", "-1", "greater than or equal to 0"),
    ("data.group_by=match", "data.group_by", "'match'", "field:NAME nor path:REGEX"),
    ('data.group_by="field:"', "data.group_by", "'field:'", "field:NAME nor path:REGEX"),
    ('data.group_by="path:([a-z"', "data.group_by", "path:([a-z", "no regular expression"),
    ('data.group_by="path:[a-z]+"', "data.group_by", "path:[a-z]+", "0 capturing groups"),
    ('data.group_by="path:(a)(b)"', "data.group_by", "path:(a)(b)", "2 capturing groups"),
    ("loss.logit_adjustment=-1", "loss.logit_adjustment", "-1", "greater than or equal to 0"),
    ('data.classes=["0",1]', "data.classes.1", "1", 'quote it in YAML: "00"'),
    ('data.classes=["a","a"]', "data.classes", "['a', 'a']", "once"),
    ('data.classes=["a"]', "data.classes", "['a']", "at least 2 items"),
    ("transforms.image_size=224.5", "transforms.image_size", "224.5", "integer"),
    ("transforms.image_size=4", "transforms.image_size", "4", "greater than or equal to 8"),
    ("transforms.resize=stretch", "transforms.resize", "'stretch'", "'squash', 'pad' or 'crop'"),
    ("transforms.mean=[0,0]", "transforms.mean", "[0, 0]", "at least 3 items"),
    ("transforms.mean=[123,117,104]", "transforms.mean", "[123, 117, 104]", "divide by 255"),
    ("transforms.std=[0,1,1]", "transforms.std", "[0, 1, 1]", "above 0"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate", "0", "greater than 0"),
    ("optimizer.learning_rate=fast", "optimizer.learning_rate", "'fast'", "number"),
    ("optimizer.learning_rate=inf", "optimizer.learning_rate", "inf", "finite"),
    ("optimizer.weight_decay=nan", "optimizer.weight_decay", "nan", "finite"),
    ("optimizer.betas=[0.9]", "optimizer.betas", "[0.9]", "at least 2 items"),
    ("optimizer.betas=[0.9,1.0]", "optimizer.betas.1", "1.0", "less than 1"),
    ("loss.label_smoothing=1", "loss.label_smoothing", "1", "less than 1"),
    ("loss.class_weights=balanced", "loss.class_weights", "'balanced'", "'inverse'"),
    ("ema.decay=1", "ema.decay", "1", "less than 1"),
    ("ema.enabled=sometimes", "ema.enabled", "'sometimes'", "boolean"),
    ("trainer.devices=0", "trainer.devices", "0", "at least 1, or -1"),
    ("trainer.strategy=dpp", "trainer.strategy", "'dpp'", "'auto' or 'ddp'"),
    ("trainer.precision=16", "trainer.precision", "16", "'16-mixed'"),
    ("trainer.limit_train_batches=2.0", "trainer.limit_train_batches", "2.0", "equal to 1"),
    ("trainer.gradient_clip_val=0", "trainer.gradient_clip_val", "0", "greater than 0"),
    ("export.opset=17", "export.opset", "17", "greater than or equal to 18"),
    ("export.precision=int4", "export.precision", "'int4'", "did you mean int8?"),
    ("resume=yes", "resume", "'yes'", "'auto' or 'never'"),
    ("callbacks.early_stopping=3", "callbacks.early_stopping", "3", "dictionary"),
    ("transforms.train=null", "transforms.train", "None", "list"),
    ("~trainer.max_epochs", "trainer.max_epochs", "is missing", "set trainer.max_epochs=VALUE"),
    ("~callbacks", "callbacks", "is missing", "set callbacks=VALUE"),
    ("data.data_root=???", "data.data_root", "is not set", "add data.data_root="),
]


@pytest.mark.promise("C1")
@pytest.mark.parametrize(("override", "key", "message", "fix"), BAD_VALUES)
def test_a_value_that_does_not_fit_is_shown_with_what_is_allowed(
    override: str, key: str, message: str, fix: str
) -> None:
    problem = problem_of(override, key, [row[:2] for row in BAD_VALUES])

    assert message in problem.message
    assert fix in problem.fix


CONFLICTS = [
    (["checkpoint.monitor=val/f1"], "checkpoint.monitor", "val/f1_macro"),
    (["checkpoint.monitor=train/loss"], "checkpoint.monitor", "val/loss"),
    (["checkpoint.monitor=val_raw/loss"], "checkpoint.monitor", "val/loss"),
    (["schedule.warmup_epochs=30"], "schedule.warmup_epochs", "shorten"),
    (["loss=weighted", "data.sampler=weighted"], "loss.class_weights", "allow_double_balance"),
    (["loss=logit_adjusted", "data.sampler=sqrt"], "loss.logit_adjustment", "allow_double_balance"),
    (["data.split.folds=5"], "data.split.folds", "data.split.fold=0,1,2,3,4"),
    (["data.split.fold=0"], "data.split.fold", "data.split.folds=5"),
    (["data.split.folds=5", "data.split.fold=5"], "data.split.fold", "0 to 4"),
    (
        ["data.split.folds=5", "data.split.fold=1", "data.split.manifest=x.csv"],
        "data.split.manifest",
        "one of the two",
    ),
    (["data.on_empty_label=class"], "data.empty_label_name", "unreadable"),
    (
        ["data.on_empty_label=class", 'data.empty_label_name=" "'],
        "data.empty_label_name",
        "unreadable",
    ),
    (["data.empty_label_name=x"], "data.empty_label_name", "on_empty_label=class"),
    (["data.group_by=field:match"], "data.group_by", "path:REGEX"),
    (["ckpt_path=a", "task.checkpoint_path=b"], "task.checkpoint_path", "one of the two"),
    (["ckpt_path=a", "model.init_from=b"], "model.init_from", "ckpt_path resumes a run"),
    (["trainer=cpu", "trainer.precision=16-mixed"], "trainer.precision", "32-true"),
    (["trainer=cpu", "trainer.devices=-1"], "trainer.devices", "use 1"),
    (["model.freeze=true", "model.weights=null"], "model.freeze", "model.weights=DEFAULT"),
    (["data.source=csv"], "data.fields", "data=csv"),
    (["data.split.val=0.5", "data.split.test=0.5"], "data.split", "below 1"),
    (["ema.enabled=false", "ema.score_raw=true"], "ema.score_raw", "ema.score_raw=false"),
]


@pytest.mark.promise("C1")
@pytest.mark.parametrize(("overrides", "key", "fix"), CONFLICTS)
def test_values_that_contradict_each_other_are_refused(
    overrides: list[str], key: str, fix: str
) -> None:
    problem = only_problem(*overrides)

    assert problem.key == key
    assert fix in problem.fix


ALLOWED = [
    ["data.split.folds=5", "data.split.fold=4"],
    ["data=jsonl", "data.group_by=field:match"],
    ['data.group_by="path:^([^/]+)_[0-9]{1,3}[.]jpg$"'],
    ["data=csv", "data.on_empty_label=class", "data.empty_label_name=none given"],
    ["data.split.val=0.5", "data.split.test=0.4"],
    ["loss=weighted", "data.sampler=weighted", "data.allow_double_balance=true"],
    ["ckpt_path=a", "task.checkpoint_path=a"],
    ["ema.score_raw=true", "checkpoint.monitor=val_raw/loss"],
    ["schedule.warmup_epochs=29.5"],
    ["optimizer.learning_rate=1"],
    ["optimizer.learning_rate=1e-3"],
    ["trainer.limit_train_batches=1.0"],
    ["trainer.limit_train_batches=3"],
    ["callbacks.early_stopping=null"],
    ["callbacks.early_stopping=null", "callbacks.progress=null"],
    ["logging=csv", "logging.csv=null"],
    ["logging=csv"],
    ["logging=tensorboard"],
    ["experiment=null"],
    ["+experiment=linear_probe"],
    ["++debug=limit"],
    ["~experiment"],
    ["callbacks=[default,none]"],
    ['data.classes=["0","00","NO"]'],
    ["data.data_root=${oc.env:HOME}"],
]


@pytest.mark.promise("C1")
@pytest.mark.parametrize("overrides", ALLOWED, ids=" ".join)
def test_what_fits_is_not_refused(overrides: list[str]) -> None:
    check(*overrides)


@pytest.mark.promise("C1")
def test_all_problems_are_listed_at_once() -> None:
    error = refusal(
        "data.data_root=???",
        "data.bach_size=3",
        "+optimizer.lr=1",
        "trainer.max_epochs=ten",
        "transforms.mean=[300,0,0]",
        "loss.label_smoothing=2",
        "checkpoint.monitor=val/f1",
        "ckpt_path=a",
        "model.init_from=b",
        "callbacks.x._target_=os.system",
        "callbacks.early_stoping=null",
        "data.split.val=0.9",
        "data.split.test=0.9",
    )

    assert {problem.key for problem in error.problems} == {
        "data.data_root",
        "data.bach_size",
        "optimizer.lr",
        "trainer.max_epochs",
        "transforms.mean",
        "loss.label_smoothing",
        "checkpoint.monitor",
        "model.init_from",
        "callbacks.x._target_",
        "callbacks.early_stoping",
        "data.split",
    }
    told = str(error)
    assert "11 problems" in told
    assert all(f"- {problem.key}: " in told for problem in error.problems)
    assert "expected: " in told
    assert "fix:      " in told


@pytest.mark.promise("C1")
def test_each_problem_is_listed_once() -> None:
    error = refusal("data._target_=os.system", "model._args_=[1]", "data.classes=[0,1]")

    keys = [problem.key for problem in error.problems]
    assert keys == ["model._args_", "data._target_", "data.classes.0", "data.classes.1"]


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("data=jsonn", "data=jsonn does not exist", "did you mean data=jsonl?"),
        ("model=resnet19", "model=resnet19 does not exist", "did you mean model=resnet18?"),
        ("experiment=linear_prob", "experiment=linear_prob", "experiment=linear_probe?"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib does not exist", "hydra/launcher=NAME"),
        ("data=3", "'data=3' chooses no option", "classifier train --help"),
        ("model={a:1}", "chooses no option", "classifier train --help"),
        ("model=", "chooses no option", "classifier train --help"),
        ("data.data_root=${foo}", "data.data_root: Interpolation key 'foo' not found", "correct"),
        ("data.data_root=${oc.env:NO_SUCH_X}", "'NO_SUCH_X' not found", "correct"),
        ("data.train_path=${data.train_path}", "data.train_path: Recursive", "correct"),
        ("=", "names no key", "remove it"),
        ("trainer max_epochs=3", "cannot read the override", "without spaces"),
        ("data.data_root", "cannot read the override", "data.data_root=VALUE"),
        ("~nothing", "'nothing' does not exist", "correct the key"),
        ("hydra.run.dir=", "names no folder", "give a path"),
        ("hydra.run.dir=null", "names no folder", "give a path"),
        ("hydra.sweeper.params={a:1}", "cannot be composed", "correct the key"),
    ],
)
def test_what_cannot_be_composed_is_told_in_the_users_words(
    override: str, what: str, fix: str
) -> None:
    error = refusal(override)

    assert what in error.what
    assert fix in error.fix
    assert "++" not in error.what


@pytest.mark.promise("C1")
def test_an_unknown_root_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config([], root="train_basketbal_resnet18")

    assert "train_demo" in caught.value.expected
    assert caught.value.fix == "--config-name train_basketball_resnet18"


@pytest.mark.promise("C1")
def test_a_missing_reference_to_an_unset_key_is_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(make_strict(["data.train_path=${data.data_root}/train"]))

    assert "data.train_path" in caught.value.what
    assert "data.data_root" in caught.value.what


@pytest.mark.promise("C1")
def test_a_configuration_is_frozen() -> None:
    config = check()

    with pytest.raises(ValueError, match="frozen"):
        config.data.batch_size = 3  # type: ignore[misc]


@pytest.mark.promise("C1")
def test_a_value_keeps_a_text_that_looks_like_a_reference() -> None:
    composed = compose_config(make_strict(["data.data_root=/x"]))
    OmegaConf.update(composed, "data.classes", [r"\${a}", "b"])

    assert validate(composed, allow_modules=[]).data.classes == ["${a}", "b"]
