"""A walk over the public names: documented, strict about keywords, silent about global state."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import hoplens as hl

# what object, Exception, nn.Module, NamedTuple and dataclass bring along is not ours to document
OPERATORS = {"__call__", "__getitem__"}


def public_names():
    for name in hl.__all__:
        value = getattr(hl, name)
        if isinstance(value, ModuleType):
            own = getattr(value, "__all__", None) or [
                key
                for key, item in vars(value).items()
                if not key.startswith("_") and getattr(item, "__module__", None) == value.__name__
            ]
            found = ((key, getattr(value, key)) for key in own)
            yield from ((f"{name}.{key}", item) for key, item in found if not isinstance(item, ModuleType))
        else:
            yield name, value


def own_members(cls):
    for key, member in vars(cls).items():
        if key.startswith("_") and key not in OPERATORS:
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "func", member)
        function = getattr(function, "__func__", function)  # class and static methods
        if inspect.isfunction(function) and function.__module__.startswith("hoplens"):
            yield key, function, isinstance(member, property) or hasattr(member, "func")


def is_protocol(cls):
    return getattr(cls, "_is_protocol", False)


PUBLIC = dict(public_names())
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
METHODS = {
    f"{name}.{key}": function
    for name, cls in CLASSES.items()
    for key, function, is_property in own_members(cls)
    if not is_property
}
PROPERTIES = {
    f"{name}.{key}": function
    for name, cls in CLASSES.items()
    for key, function, is_property in own_members(cls)
    if is_property
}
CONSTRUCTED = {
    name: cls
    for name, cls in CLASSES.items()
    if not issubclass(cls, Exception) and cls.__init__ is not object.__init__ and not is_protocol(cls)
}


def is_ours(function):
    return getattr(function, "__module__", "").startswith("hoplens")


def test_the_walk_finds_what_there_is():
    assert len(FUNCTIONS) >= 20
    assert len(METHODS) >= 20
    assert {"train", "read", "hop_maps", "tasks.make", "recipes.none", "recipes.recommended"} <= set(
        FUNCTIONS
    )
    assert {"Pathways.adjacency", "HopMaps.to_dataframe", "Pathways.__getitem__"} <= set(METHODS)
    assert {"Pathways.n_inputs", "HopMaps.lags", "tasks.Task.target_maps"} <= set(PROPERTIES)
    assert {"Pathways", "PathwayPenalty", "schedules.Schedule", "Recipe", "Ensemble", "tasks.Task"} <= set(
        CONSTRUCTED
    )


EVERYTHING = """
import importlib, pkgutil, types
import hoplens as hl
for module in pkgutil.walk_packages(hl.__path__, "hoplens."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert set(dir(hl)) == {*hl.__all__, "__version__"}, set(dir(hl)) ^ set(hl.__all__)
for name in hl.__all__:
    value = getattr(hl, name)
    assert name == name.lower() or isinstance(value, type), name
"""


def test_dir_is_a_table_of_contents_whatever_has_been_imported():
    """Python sets every module that is imported as an attribute of its package."""
    assert len(set(hl.__all__)) == len(hl.__all__) <= 80
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds = {name for name, value in vars(hl.errors).items() if isinstance(value, type)}
    assert not (kinds - {"HoplensError"}) & set(hl.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", hl.__version__)


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS, *PROPERTIES])
def test_every_public_name_has_a_docstring(name):
    value = {**PUBLIC, **METHODS, **PROPERTIES}[name]
    if isinstance(value, dict | tuple):  # tables of names: documented where they are used
        return
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text, f"{name} has no docstring"
    summary = text.strip().splitlines()[0]
    assert summary.endswith((".", ":")), f"{name}: the first line is no sentence: {summary!r}"
    assert not summary.startswith(f"{name.split('.')[-1]}("), f"{name} has only the generated docstring"


def documented(text, parameter):
    return re.search(rf"\b{re.escape(parameter)}\b", text or "") is not None


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_parameter_is_in_the_docstring(name):
    function = {**FUNCTIONS, **METHODS}[name]
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    if name.endswith("__getitem__"):
        return  # the summary says what an index selects
    owner = CLASSES.get(name.rpartition(".")[0])
    text = (function.__doc__ or "") + (owner.__doc__ or "" if owner else "")
    missing = [p for p in parameters if not documented(text, p)]
    assert not missing, f"{name} does not document {', '.join(missing)}"


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_every_parameter_of_a_constructor_is_in_the_class_docstring(name):
    cls = CONSTRUCTED[name]
    parameters = inspect.signature(cls).parameters
    inherited = not is_ours(inspect.unwrap(cls.__init__)) and "__dataclass_fields__" not in vars(cls)
    if inherited:  # nn.Module's own: takes nothing
        return
    missing = [p for p in parameters if not documented(cls.__doc__, p)]
    assert not missing, f"{name} does not document {', '.join(missing)}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS, *CONSTRUCTED])
def test_no_signature_swallows_keywords(name):
    value = {**FUNCTIONS, **METHODS, **CONSTRUCTED}[name]
    target = value.__init__ if inspect.isclass(value) else value
    if not is_ours(target):
        return
    kinds = {p.kind for p in inspect.signature(target).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS, *CONSTRUCTED])
def test_unknown_keywords_are_refused(name):
    value = {**FUNCTIONS, **METHODS, **CONSTRUCTED}[name]
    with pytest.raises(TypeError, match=r"no_such_option|takes no (keyword )?arguments"):
        value(no_such_option=1)


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_parameter_is_annotated(name):
    function = {**FUNCTIONS, **METHODS}[name]
    signature = inspect.signature(function)
    bare = [
        p.name
        for p in signature.parameters.values()
        if p.annotation is p.empty and p.name not in ("self", "cls")
    ]
    assert not bare
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_cannot_be_changed(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        assert not isinstance(parameter.default, list | dict | set), parameter


# Words that must not stand for inputs= and input_names=, and where one means something else.
SYNONYMS = {"data", "dataset", "x", "xs", "sequences", "batches", "samples", "names", "labels"}
OTHER_MEANING = {
    "closed_loop_return.data": "a data set, which says of which task it is",
    "from_sequences.sequences": "what a data set is made of, of any lengths",
    "apply_measures.names": "of measures",
    "prune.samples": "how many",
    "check_task.samples": "how many",
}
NO_READOUT = {
    "fixed_points": "states, whatever is read out of them",
    "check_cell": "of a cell alone",
    "takes": "an exporter is asked about whole models",
}
SHARES = {"forward", "active", "__call__"}  # of a schedule: how much of a training is over
STEPS = {
    "Cell",
    "Stack",
    "Ensemble",
    *(cls.__name__ for cls in CLASSES.values() if cls.__name__.endswith("Cell")),
}


def calls():
    for name, value in {**FUNCTIONS, **METHODS}.items():
        yield name.split(".")[-1], name, list(inspect.signature(value).parameters.values())


def test_one_word_for_one_thing():
    """Data is ``inputs=``, names are ``input_names=``; ``x`` is the input of one step of a cell."""
    wrong = []
    for short, name, parameters in calls():
        owner = CLASSES.get(name.rpartition(".")[0])
        of_a_cell = owner is not None and owner.__name__ in STEPS
        for p in parameters:
            if p.name in SYNONYMS and f"{short}.{p.name}" not in OTHER_MEANING and not of_a_cell:
                wrong.append(f"{name}({p.name})")
            if p.name == "progress" and "Progress" not in str(p.annotation) and short not in SHARES:
                wrong.append(f"{name}: progress is {p.annotation}")
    assert not wrong


def test_what_takes_a_model_takes_its_readout():
    for short, name, parameters in calls():
        names = [p.name for p in parameters]
        if names and names[0] == "model":
            assert ("readout" in names) != (short in NO_READOUT), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_named(name):
    """After what a call is about at most one option may stand without its name."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    bare = [p.name for p in parameters if p.default is not p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(bare) <= 1


IMPORT = """
import random, warnings
import numpy, torch
def state():
    return (
        torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
        torch.get_default_device(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        torch.get_rng_state().tolist(), torch.initial_seed(), torch.is_anomaly_enabled(),
        repr(numpy.random.get_state()), repr(numpy.geterr()), repr(random.getstate()), repr(warnings.filters),
        torch.sparse.check_sparse_tensor_invariants.is_enabled(),
    )
import pandas, scipy.sparse  # what they do to warnings is not ours
before = state()
import hoplens
after = state()
changed = [n for n, (a, b) in enumerate(zip(before, after)) if a != b]
assert not changed, changed
import sys
heavy = [name for name in ("matplotlib.pyplot", "networkx", "onnx", "sklearn") if name in sys.modules]
assert not heavy, heavy
"""


def test_import_changes_no_global_state_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LAZY = """
import sys
import hoplens as hl
assert not {"pandas", "scipy.stats", "hoplens.studies.statistics"} & set(sys.modules)
assert "statistics" in dir(hl)
assert hl.statistics.holm is sys.modules["hoplens.studies.statistics"].holm
try:
    hl.statistic
except AttributeError as error:
    assert "no attribute 'statistic'" in str(error)
else:
    raise SystemExit("a name that does not exist was found")
"""


def test_modules_that_take_a_second_are_loaded_when_used():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_values_that_hold_tensors_or_tables_do_not_compare_entry_by_entry():
    """``==`` of two tensors is a tensor: what holds them would raise torch's ambiguity error."""
    import dataclasses
    import importlib
    import pkgutil

    wrong, seen = [], 0
    for module in pkgutil.walk_packages(hl.__path__, "hoplens."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if not (isinstance(value, type) and dataclasses.is_dataclass(value)):
                continue
            kinds = [str(f.type) for f in dataclasses.fields(value) if "Callable" not in str(f.type)]
            if any(re.search(r"\b(Tensor|ndarray|DataFrame|Pathways|Ensemble)\b", kind) for kind in kinds):
                seen += 1
                if value.__eq__ is not object.__eq__:
                    wrong.append(f"{value.__module__}.{value.__qualname__}")
    assert seen > 30
    assert not wrong
