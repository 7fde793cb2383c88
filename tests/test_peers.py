import jax

from snnvit_jax.distributed import peers


def after(*answers, processes=3, seconds=1.0):
    """What is known after some answers, each of which took a second."""
    heard = peers.nothing_heard(processes)
    for answer in answers:
        heard = peers.listen(heard, answer, seconds)
    return heard


def test_nobody_is_lost_while_all_count():
    heard = after(*({0: n, 1: n, 2: n} for n in range(1, 20)))
    assert set(heard.silence.values()) == {0.0}
    assert peers.find_lost(heard, timeout=1) is None


def test_a_process_that_stops_counting_is_lost_after_the_timeout():
    beats = [{0: n, 1: min(n, 2), 2: n} for n in range(1, 7)]
    assert peers.find_lost(after(*beats[:5]), timeout=4) is None
    assert peers.find_lost(after(*beats), timeout=4) == 1


def test_a_process_that_never_counted_is_lost_too():
    assert peers.find_lost(after(*({0: n, 1: n} for n in range(1, 5))), timeout=4) == 2


def test_a_process_that_comes_back_is_not():
    beats = [{0: n, 1: 1 if n < 4 else n, 2: n} for n in range(1, 5)]
    assert after(*beats).silence == {0: 0.0, 1: 0.0, 2: 0.0}


def test_process_0_is_lost_when_there_is_no_answer():
    assert peers.find_lost(after({0: 1, 1: 1, 2: 1}, None, None), timeout=3) is None
    assert peers.find_lost(after({0: 1, 1: 1, 2: 1}, None, None, None), timeout=3) == 0


def test_nobody_is_blamed_for_not_being_heard_while_process_0_was_away():
    # Three seconds without an answer; then process 0 is back, and has not heard the others yet.
    heard = after({0: 1, 1: 1, 2: 1}, None, None, None, {0: 2, 1: 1, 2: 1})
    assert heard == peers.Heard({0: 2, 1: 1, 2: 1}, {0: 0.0, 1: 1.0, 2: 1.0}, 0.0)


class Store:
    """Numbers as JAX's service keeps them."""

    def __init__(self):
        self.numbers, self.answers = {}, True

    def key_value_increment(self, key, by):
        if not self.answers:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
        self.numbers[key] = self.numbers.get(key, 0) + by
        return self.numbers[key]

    def key_value_dir_get(self, prefix):
        return [(key, str(n)) for key, n in self.numbers.items() if key.startswith(prefix)]


def pair(timeout=10):
    store = Store()
    return store, [peers.Watcher(store, process, 2, timeout) for process in (0, 1)]


def looks(watcher, beating, times):
    """What a watcher says, look after look, while others beat."""
    said = []
    for _ in range(times):
        for other in beating:
            other.beat()
        said.append(watcher.look(watcher.seconds))
    return said


def test_two_processes_that_beat_hear_each_other():
    _, both = pair()
    assert both[0].seconds == 1
    for _ in range(30):
        assert looks(both[0], both, 1) == looks(both[1], both, 1) == [None]


def test_the_process_that_stopped_is_named():
    _, (zero, one) = pair()
    looks(zero, [one, zero], 3)
    said = looks(zero, [zero], 12)  # two seconds more than the timeout: process 0 leaves last
    assert said[:-1] == [None] * 11
    assert said[-1] == "process 1 of 2 has been silent for 12 seconds"


def test_process_0_is_named_if_it_does_not_answer():
    store, (zero, one) = pair()
    looks(one, [zero, one], 3)
    store.answers = False
    said = looks(one, [one], 10)
    assert said == [None] * 9 + ["process 0 of 2 has been silent for 10 seconds"]


def test_a_process_that_was_stopped_itself_blames_nobody():
    _, (zero, one) = pair()
    looks(zero, [zero, one], 1)
    assert zero.look(1000.0) is None
    assert looks(zero, [zero, one], 1) == [None]


def test_many_processes_do_not_ask_more_often_than_every_five_seconds():
    assert peers.Watcher(Store(), 0, 512, timeout=600).seconds == 5
