"""The paper's study: the study files of the package, and what they train."""

from __future__ import annotations

from importlib import resources

from hoplens.data.tasks import Task
from hoplens.errors import ParameterError, check_choice
from hoplens.studies.sweeps.config import parse_study
from hoplens.studies.sweeps.plan import MAIN, Plan
from hoplens.studies.sweeps.settings import TaskSetting

ABLATION = "ablation"
REACH = "reach"
FILES = {"paper": "full.toml", "paper-quick": "quick.toml"}


def study_text(name: str) -> str:
    """Return a study file of the package.

    Parameters
    ----------
    name : {"paper", "paper-quick"}

    Raises
    ------
    UnknownNameError
        For another name.
    """
    file = FILES[check_choice("study of the package", name, FILES)]
    return resources.files("hoplens.studies.paper").joinpath(file).read_text(encoding="utf-8")


def quick_plan() -> Plan:
    """Return the study of the demo: four tasks, 4 + 8 seeds."""
    return parse_study(study_text("paper-quick")).plan()


def full_plan() -> Plan:
    """Return the whole study: twelve tasks, ablation and reach, 8 + 20 seeds."""
    return parse_study(study_text("paper")).plan()


def settings_of(plan: Plan, part: str) -> dict[str, TaskSetting]:
    """Return what the networks of a part are trained on and with, by the task's label; {} without the part.

    Parameters
    ----------
    plan : Plan
    part : str

    Raises
    ------
    ParameterError
        If they learn something else than synthetic tasks.
    """
    found = {member.task: member.setting for member in plan.members if member.part == part}
    settings = {
        label: setting
        for label, setting in found.items()
        if isinstance(setting, TaskSetting) and isinstance(setting.task, Task)
    }
    if len(settings) < len(found):
        raise ParameterError(f"the study {plan.name} is not one of synthetic tasks")
    return settings


def tasks_of(plan: Plan, part: str) -> dict[str, Task]:
    """Return the tasks of a part by their label; see `settings_of`.

    Parameters
    ----------
    plan : Plan
    part : str
    """
    found = settings_of(plan, part).items()
    return {label: setting.task for label, setting in found if isinstance(setting.task, Task)}


__all__ = [
    "ABLATION",
    "FILES",
    "MAIN",
    "REACH",
    "full_plan",
    "quick_plan",
    "settings_of",
    "study_text",
    "tasks_of",
]
