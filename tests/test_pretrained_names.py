"""Trained networks by name and by path: which one is meant, and what names none."""

import pathlib

import pytest

import snnvit_jax as snn
from snnvit_jax.pretrained import catalogue, folder
from snnvit_jax.runs import initial, networks, opening, start, teachers


def test_a_bad_name_gets_the_list_and_the_nearest():
    message = r"'digits_lerned' \(did you mean 'digits_learned'\?\).*digits_learned, .*digits_t4"
    for load in (snn.load_pretrained, lambda n: initial.check_source(f"pretrained:{n}")):
        with pytest.raises(ValueError, match=message):
            load("digits_lerned")
    with pytest.raises(FileNotFoundError, match="come.* with the package: .*digits_learned"):
        networks.open_network("/nowhere/x")
    with pytest.raises(ValueError, match="no pretrained network is called ''"):
        snn.load_pretrained("")


@pytest.fixture
def namesake(tmp_path, monkeypatch):
    """A folder in the working directory, called like a network of the package that it is not."""
    monkeypatch.chdir(tmp_path)
    own = snn.load_pretrained("digits_t4")
    masks = {name: [1, 0, 0, 0] for name in own.schedule.masks}
    changed = snn.with_schedule(own.variables, snn.TimeStepSchedule(masks))
    folder.write("digits_t4", own.about, changed)
    return tmp_path / "digits_t4"


@pytest.fixture(scope="module")
def t4():
    return snn.load_pretrained("pretrained:digits_t4")


def average_of(network, variables):
    names = network.schedule.masks
    return snn.TimeStepSchedule.from_variables(variables, list(names)).average


ROUTES = {
    "load_pretrained": lambda place, t4: snn.load_pretrained(place).variables,
    "opening": lambda place, t4: opening.variables_of(place),
    "teachers": lambda place, t4: teachers.load(teachers.find(place), 10),
    "initial": lambda place, t4: initial.load(place, t4.model, t4.variables),
    "open_network": lambda place, t4: networks.open_network(place),
    "start": lambda place, t4: start.load(place, t4.model, t4.variables, t4.classes)[0],
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_folder_by_path_is_never_the_network_called_alike(namesake, t4, route, monkeypatch):
    monkeypatch.setattr(networks, "deploy", lambda model, variables, **_: variables)
    read = ROUTES[route]
    for place in ("./digits_t4", pathlib.Path("digits_t4"), namesake, str(namesake)):
        assert average_of(t4, read(place, t4)) == 1.0, place
    assert average_of(t4, read("pretrained:digits_t4", t4)) == 4.0


def test_a_training_from_a_folder_tells_its_weights(namesake, t4):
    origin = start.load("./digits_t4", t4.model, t4.variables, t4.classes)[1]
    assert origin["sha256"] == folder.read_config(namesake)["sha256"] != t4.about["sha256"]


def test_a_plain_name_that_a_folder_has_too_is_refused(namesake, monkeypatch):
    message = "write './digits_t4' for the folder, 'pretrained:digits_t4' for the network of the"
    for load in (snn.load_pretrained, networks.open_network):
        with pytest.raises(ValueError, match=message):
            load("digits_t4")
    for file in namesake.iterdir():
        file.unlink()
    assert snn.load_pretrained("digits_t4").schedule.average == 4.0  # a folder of other things
    monkeypatch.chdir(catalogue.NETWORKS)
    assert snn.load_pretrained("digits_t4").schedule.average == 4.0  # the same one


def test_no_network_has_a_name_of_300_characters():
    with pytest.raises(FileNotFoundError, match="xxx' is neither a run's folder nor a file"):
        networks.open_network("x" * 300)


def test_a_path_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("digits_t4", "pretrained:digits_t4"):
        with pytest.raises(ValueError, match=f"no folder '{path}'; by their names, as texts, .*t4"):
            snn.load_pretrained(pathlib.Path(path))


@pytest.mark.parametrize("value", [None, 3, ["x"], b"digits_t4"])
def test_what_is_no_text_and_no_path_is_refused(value):
    with pytest.raises(TypeError, match=r"its name, a text, or by the path .*, got (None|3|\[|b')"):
        snn.load_pretrained(value)


def test_names_are_understood_or_refused_however_they_are_spelt():
    assert snn.load_pretrained("pretrained:digits_t4").about["name"] == "digits_t4"
    for name in ("digits_t4/", "networks/digits_t4", "pretrained:digits_t4/"):
        with pytest.raises(ValueError, match=r"called '.*' \(did you mean 'digits_t4'\?\)"):
            snn.load_pretrained(name)
    for name in ("x" * 300, "\0", "pretrained:", "pretrained:."):
        with pytest.raises(ValueError, match="no pretrained network is called '"):
            snn.load_pretrained(name)
