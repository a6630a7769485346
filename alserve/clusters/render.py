"""Jobs as the files that schedulers read; every value arrives there as it was given, whatever characters it has."""

import json
import re
import shlex

from jinja2 import Environment, PackageLoader, StrictUndefined

from alserve import __version__
from alserve.clusters.job import Job, Kind

_TEMPLATES: dict[Kind, str] = {"k8s": "k8s.yaml.jinja", "ray": "ray.yaml.jinja", "slurm": "slurm.sh.jinja"}


def render(job: Job) -> str:
    """Return the file that starts a job: YAML for `kubectl apply`, or a script for `sbatch`."""
    environment = Environment(
        loader=PackageLoader("alserve", "templates/clusters"),
        autoescape=False,  # noqa: S701  no HTML; see the filters
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({"yaml": yaml_text, "kubernetes": unexpanded, "shell": shlex.join})
    return environment.get_template(_TEMPLATES[job.kind]).render(job=job, version=__version__)


def yaml_text(text: str) -> str:
    """Return a text in double quotes as YAML reads it: JSON, and characters that are not printed by their numbers."""
    return re.sub(
        r"[^ -~]",
        lambda found: found[0] if found[0].isprintable() else f"\\U{ord(found[0]):08x}",
        json.dumps(text, ensure_ascii=False),
    )


def unexpanded(text: str) -> str:
    """Return a word of a container that Kubernetes, which replaces `$(NAME)` and `$$`, turns into the text."""
    return text.replace("$", "$$")
