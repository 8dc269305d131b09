"""The steps a new organisation goes through."""

import itertools

import pytest

from hub.portal.overview import Progress, headline, steps

INSTALL = "curl -fsSL https://hub.example/install.sh | sh"
EVERY = [Progress(*done) for done in itertools.product([False, True], repeat=4)]


@pytest.mark.parametrize("progress", EVERY)
def test_the_first_step_that_is_not_done_is_the_next(progress):
    way = steps(progress, INSTALL)
    done = [progress.has_node, progress.is_online, progress.has_key, progress.has_used]
    assert [step.done for step in way] == done
    assert [step.next for step in way] == [not done[place] and all(done[:place]) for place in range(4)]


@pytest.mark.parametrize("progress", EVERY)
def test_the_command_is_shown_as_long_as_it_is_needed(progress):
    node, *others = steps(progress, INSTALL)
    assert node.command == (None if progress.has_node else INSTALL)
    assert all(step.command is None for step in others)


@pytest.mark.parametrize("progress", EVERY)
def test_a_step_that_leads_somewhere_says_where(progress):
    assert all(step.link_words for step in steps(progress, INSTALL) if step.link)


def test_the_headline_counts():
    assert headline(0, 0).startswith("No machine has joined")
    assert headline(1, 0) == "Your node is not online: requests are refused until it is."
    assert "None of your 2 nodes" in headline(2, 0)
    assert headline(1, 1) == "Your node is online."
    assert headline(3, 1) == "1 of your 3 nodes is online."
    assert headline(4, 2) == "2 of your 4 nodes are online."
    assert headline(2, 2) == "All of your 2 nodes are online."


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ((1, 1, 1), "Your node is online. It is on drain, so requests are refused."),
        ((3, 1, 1), "1 of your 3 nodes is online. It is on drain, so requests are refused."),
        ((2, 2, 2), "All of your 2 nodes are online. All of those are on drain, so requests are refused."),
        ((3, 2, 1), "2 of your 3 nodes are online. 1 of those is on drain and gets no requests."),
        ((4, 3, 2), "3 of your 4 nodes are online. 2 of those are on drain and get no requests."),
    ],
)
def test_the_headline_does_not_pass_over_nodes_on_drain(nodes, said):
    assert headline(*nodes) == said
