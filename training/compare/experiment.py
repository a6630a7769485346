"""An experiment: methods x seeds, each a run of its own, from one YAML file."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from unicodedata import normalize

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alserve.errors import DataError, OptionError, RunError
from alserve.measure.dataset import load_dataset
from alserve.paths import below
from alserve.places.urls import Location, path_of
from alserve.registry import suggest
from alserve.terminal import progress, say
from training.annotate.oracle import SimulatedOracle
from training.compare.cluster import run_on_cluster
from training.compare.jobs import RunJob, run_jobs
from training.data.local_copy import local_copy
from training.learning.algorithm import describe
from training.model.trainer import Trainer
from training.model.weights import fingerprint as weights_fingerprint
from training.report import report_folders
from training.run.folder import LATEST, remove_images
from training.run.records import read_config, read_rounds
from training.settings import PRESETS, Settings
from training.train import check_budget

Model = TypeVar("Model", bound=BaseModel)
MOST_BYTES = 256 << 10
"""Largest size of an experiment's file."""

Engine = Literal["local", "ray"]
"""What does the runs."""

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
Seed = Annotated[int, Field(ge=0, strict=True)]


class Experiment(BaseModel):
    """The content of an experiment's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    """The data set, a URL or relative to the file; or given at the command line."""
    masks: str | None = None
    """Its folder of masks, a URL or relative to the file."""
    preset: str | None = None
    """Settings for a kind of data."""
    settings: dict[str, Any] = {}
    """Settings of all runs, which replace the preset's; a file among them is relative to this one."""
    methods: Annotated[dict[Name, dict[str, Any] | None], Field(min_length=1)]
    """Settings by the name of a method, which replace those of all runs."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"unknown preset '{self.preset}'; {suggest(self.preset, PRESETS)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice in 'seeds'")
        alike: dict[str, str] = {}
        for name in self.methods:
            if (other := alike.setdefault(normalize("NFC", name).casefold(), name)) != name:
                raise ValueError(
                    f"methods '{other}' and '{name}' differ by case or Unicode form only, as folders may not"
                )
        for place, values in (("settings", self.settings), *self.methods.items()):
            if "seed" in (values or {}):
                raise ValueError(f"'seed' in {place}: list the seeds under 'seeds'")
        return self


def read_experiment(path: Path) -> Experiment:
    """Read an experiment's file.

    Raises:
        DataError: It is missing, not YAML, or holds a key or value that is not known.
    """
    try:
        content = yaml.load(_read_text(path), _Loader)  # noqa: S506  a safe loader
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{line}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise DataError(
            f"{path}: holds something other than text, numbers, lists and mappings; see docs/compare.md"
        ) from None
    experiment = _checked(Experiment, content, str(path))
    for values in (experiment.settings, *experiment.methods.values()):
        if values and isinstance(weights := values.get("encoder_weights"), str):
            values["encoder_weights"] = str(path.parent / weights)
    for name in experiment.methods:
        settings_of(experiment, name, experiment.seeds[0], str(path))
    return experiment


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is not a regular file; name a YAML file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: is larger than {MOST_BYTES >> 10} KiB, as no experiment's file is")
    return content.decode()


def settings_of(experiment: Experiment, method: str, seed: int, where: str = "") -> Settings:
    """Return the settings of one run.

    Raises:
        DataError: One is unknown or does not fit.
    """
    own = experiment.methods[method] or {}
    preset = PRESETS[experiment.preset] if experiment.preset else {}
    return _checked(Settings, {**preset, **experiment.settings, **own, "seed": seed}, f"{where}: method {method}")


def run_experiment(
    config: Path,
    out: Path,
    *,
    data: Location | None = None,
    masks: Location | None = None,
    jobs: int = 1,
    device: str = "auto",
    engine: Engine = "local",
    address: str | None = None,
) -> list[str]:
    """Train what is not trained yet, several runs at once, and write the report of all.

    Args:
        config: The experiment's file.
        out: Folder for it all: a run NAME-SEED each, `logs/`, `cache/`, and the report.
        data: The data set, in place of the file's.
        masks: Its folder of masks.
        jobs: Runs at once on each machine. They share its cores and its GPUs.
        device: See `training.model.trainer.Trainer`.
        engine: What does the runs: this machine ("local"), or a Ray cluster ("ray"), where `config`, the data and `out`
            are on storage that all machines share.
        address: Where the cluster is, see `training.compare.cluster.run_on_cluster`.

    Returns:
        A line about every run that failed; the others are done.

    Raises:
        DataError: The file or the data do not fit.
        DeviceError: The device cannot be used, or the cluster.
        OptionError: Ray is not installed, or an address is of no use.
    """
    if address is not None and engine == "local":
        raise OptionError("--address names a Ray cluster; add --engine ray")
    experiment = read_experiment(config)
    planned, fingerprint = _plan(config, experiment, out, data, masks, device)
    if engine == "local":
        for job in planned:
            Trainer(job.settings, device)  # a device that cannot be used: nothing is begun
    waiting = [job for job in planned if not _is_finished(job, fingerprint)]
    if finished := len(planned) - len(waiting):
        say(f"{finished} of {len(planned)} runs were finished before")
    failures: dict[str, str] = {}

    def rounds_left() -> int:
        going = [job for job in waiting if job.name not in failures]
        return sum(max(0, len(job.settings.schedule) - _rounds_done(job)) for job in going)

    def done(job: RunJob, failure: str | None) -> None:
        if failure:
            failures[job.name] = f"{job.name} failed: {failure} (see {out / 'logs' / job.name}.log)"
        say(failures.get(job.name) or f"{job.name}: {describe(read_rounds(job.out)[-1])}")

    total = rounds_left()
    run_all = partial(run_on_cluster, address=address) if engine == "ray" else run_jobs
    with progress(total, unit="rounds") as show:
        run_all(waiting, out / "logs", jobs, done, lambda: show(total - rounds_left()))
    if not failures:
        remove_images(out / "cache")
    if len(failures) < len(planned):
        say(f"{report_folders([out])} shows what they learned")
    return list(failures.values())


def _plan(
    config: Path, experiment: Experiment, out: Path, data: Location | None, masks: Location | None, device: str
) -> tuple[list[RunJob], str]:
    """Return all runs, whose data and settings fit together, and the fingerprint of the data."""
    source = data or (_beside(config, experiment.data) if experiment.data else None)
    if source is None:
        raise DataError(f"{config}: names no data set; add 'data' to it, or give --data")
    if experiment.masks and data is None and masks is None:
        masks = _beside(config, experiment.masks)
    dataset = local_copy(load_dataset(source, masks))
    for method in experiment.methods:
        settings = settings_of(experiment, method, experiment.seeds[0])
        check_budget(dataset, settings, SimulatedOracle())
        weights_fingerprint(settings.encoder_weights)  # a file that cannot be read: nothing is begun
    jobs = [
        RunJob(
            name=f"{method}-{seed}",
            data=source,
            masks=masks,
            out=below(out, f"{method}-{seed}", config),
            settings=settings_of(experiment, method, seed),
            device=device,
            cache=out / "cache",
        )
        for method in experiment.methods
        for seed in experiment.seeds
    ]
    return jobs, dataset.fingerprint()


def _beside(config: Path, location: Location) -> Location:
    """Return a place that an experiment's file names: a path is relative to the file."""
    path = path_of(location)
    return location if path is None else config.parent / path


def _rounds_done(job: RunJob) -> int:
    """Count a run's finished rounds; none where its file is damaged, which the run writes anew."""
    with suppress(RunError):
        return len(read_rounds(job.out))
    return 0


def _is_finished(job: RunJob, fingerprint: str) -> bool:
    """Tell whether all rounds of a run are done, with these settings and data, and its report is written.

    One of which nothing but its figures is there, brought from another machine, is finished as well.
    """
    with suppress(RunError):
        config = read_config(job.out)
        weights = weights_fingerprint(job.settings.encoder_weights)
        same = (config["settings"], config["fingerprint"], config["encoder_weights"]) == (
            job.settings.model_dump(mode="json"),
            fingerprint,
            weights,
        )
        done = len(read_rounds(job.out)) == len(job.settings.schedule)
        return same and done and ((job.out / "report.html").is_file() or not (job.out / LATEST).exists())
    return False


def _checked(model: type[Model], values: object, where: str) -> Model:
    """Validate values; the first that does not fit is an error of one line, with what may have been meant."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    words = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        words = f"unknown key '{place}'; {suggest(place, model.model_fields)}"
    elif first["type"] == "literal_error":
        choices = get_args(model.model_fields[place].annotation)
        words = f"unknown {place} '{first['input']}'; {suggest(first['input'], choices)}"
    elif place:
        words = f"{place}: {words}"
    raise DataError(f"{where}: {words}")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads plain values only, and refuses a key that is there twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:  # noqa: ANN401
        """Refuse aliases, by which a short file can hold any number of values."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                problem="aliases (*name) are not read; what all methods share goes under 'settings'", problem_mark=mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"'{key.value}' is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
