"""What an organisation's nodes offer: counted as keys would meet it, and nobody else's."""

import pytest

from hub.policy import Sharing, SharingKind
from hub.storage.records import Role
from tests.integration.hub.portal.test_node_models import model

MODELS = (
    model("quick", "ready", capabilities=("chat",), size_bytes=3 * 2**30, context_length=4096),
    model("org/later:8b", "cold", capabilities=("embeddings",)),
    model("far", "warming", phase="downloading", done_bytes=1, total_bytes=4, on_disk=False),
    model("huge", "cold", fits=False),
)
CATALOG = "smollm2-135m-instruct"


@pytest.fixture
async def node(portal, connect):
    found = await portal.node()
    await connect(found, models=MODELS)
    return found


async def test_everybody_sees_each_model_with_how_it_stands(node, sign_in):
    for role in (Role.OWNER, Role.MEMBER, Role.AUDITOR):
        page = (await (await sign_in(role)).open("/models")).text
        for said in ("quick", "3.0 GiB", "4,096 tokens", "1 ready", "1 on demand", "1 loading", "1 not now"):
            assert said in page
        assert "downloading 25 %" in page
        assert f"porten models pull {CATALOG}" in page
        assert 'href="/models/org/later%3A8b"' in page


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ("find=QUI", ["quick"], ["later", "huge"]),
        ("can=embeddings", ["org/later:8b"], ["quick", CATALOG]),
        ("find=smollm", [CATALOG, "No model of your nodes is like that"], ["quick"]),
        ("can=everything&find=", ["quick", "huge"], []),
    ],
)
async def test_the_list_is_narrowed(owner, node, query, shown, hidden):
    page = (await owner.open(f"/models?{query}")).text
    assert [each for each in shown if each not in page] == []
    assert [each for each in hidden if f">{each}<" in page] == []


async def test_an_empty_list_says_what_to_do(portal, owner):
    page = (await owner.open("/models")).text
    assert "Models come with machines" in page
    assert f"curl -fsSL {portal.hub.addresses.api_url}/install.sh | sh" in page
    await portal.node()
    await portal.hub.registry.facts.load()
    page = (await owner.open("/models")).text
    assert "None of your nodes says what it offers" in page
    assert CATALOG in page


async def test_a_models_page_goes_node_by_node_and_gives_jobs(portal, owner, node):
    page = (await owner.open("/models/org/later:8b")).text
    assert f'href="/nodes/{node.id}"' in page
    assert "Load on attic" in page
    wish = {"model": "org/later:8b", "action": "load", "back": "/models/org/later%3A8b"}
    answer = await owner.post(f"/nodes/{node.id}/models", wish)
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/org/later%3A8b")
    assert portal.hub.jobs.latest(node.id)["org/later:8b"].action == "load"
    assert '"Load on attic"' not in (await owner.open("/models/org/later:8b")).text, "it is on its way"
    answer = await owner.post(f"/nodes/{node.id}/models", wish | {"model": "quick", "back": "//evil.example"})
    assert answer.headers["location"] == f"/nodes/{node.id}#models"


async def test_a_model_that_is_on_no_node_says_how_to_get_it(owner, node):
    page = (await owner.open(f"/models/{CATALOG}")).text
    assert f"porten models pull {CATALOG}" in page
    assert "Apache-2.0" in page
    assert "Q4_1" in page


async def test_members_look_and_get_no_buttons(node, sign_in):
    member = await sign_in(Role.MEMBER)
    page = (await member.open("/models/quick")).text
    assert "attic" in page
    assert "/nodes/" + node.id + "/models" not in page


async def test_what_others_offer_does_not_show_not_even_what_is_shared(node, sign_in, connect, portal):
    shared = await portal.node("Acme", name="lent", sharing=Sharing(SharingKind.PUBLIC))
    await connect(shared, models=(model("lent-model", "ready"),))
    stranger = await sign_in(Role.OWNER, "Eve")
    for path in ("/models", "/models?find=", f"/models/{CATALOG}"):
        page = (await stranger.open(path)).text
        assert [each for each in ("quick", "lent", "attic", "far<") if each in page] == []
    there, nowhere = [await stranger.open(f"/models/{name}") for name in ("quick", "none-of-that-name")]
    assert (there.status_code, there.text) == (404, nowhere.text)
    assert (await stranger.open("/models/")).status_code == 404


async def test_an_operator_sees_their_own_organisations(node, operator):
    assert "quick" not in (await operator.open("/models")).text
