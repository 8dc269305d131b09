"""Which web pages a browser lets use the API: those that the operator named, and none with cookies."""

import pytest

PAGE = "https://app.example.org"
ASKS = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-porten-region",
}
PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/models"]


def told(response):
    return {name for name in response.headers if name.startswith("access-control-")}


@pytest.fixture
async def auth(bench):
    organisation = await bench.organisation()
    await bench.node(organisation)
    return {"authorization": f"Bearer {await bench.key(organisation)}"}


def ask(http, auth, path="/v1/chat/completions", **headers):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    return http.post(path, json=body, headers=auth | headers)


@pytest.mark.parametrize("path", PATHS)
async def test_by_default_no_page_may(http, auth, path):
    assert told(await http.options(path, headers=ASKS)) == set()
    assert told(await http.get(path, headers=auth | {"origin": PAGE})) == set()


class TestNamed:
    @pytest.fixture
    def settings(self):
        return {"cors_origins": (PAGE, "http://localhost:3000")}

    @pytest.mark.parametrize("path", PATHS)
    async def test_a_page_that_was_named_may_ask_without_cookies(self, http, path):
        response = await http.options(path, headers=ASKS)
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-allow-methods"] == "GET, POST"
        assert response.headers["access-control-allow-headers"] == ASKS["access-control-request-headers"]
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers

    @pytest.mark.parametrize(
        "origin",
        ["https://evil.example", "null", PAGE + ".evil.example", PAGE.upper(), "http://app.example.org"],
    )
    async def test_no_other_page_may(self, http, auth, origin):
        response = await http.options(PATHS[0], headers=ASKS | {"origin": origin})
        assert told(response) == set()
        answered = await ask(http, auth, origin=origin)
        assert told(answered) == set()
        assert answered.headers["vary"] == "Origin"

    async def test_answers_and_errors_and_streams_can_be_read_with_their_headers(self, http, auth):
        whole = await ask(http, auth, origin=PAGE)
        refused = await http.post(PATHS[0], json={}, headers={"origin": PAGE})
        listed = await http.get("/v1/models", headers=auth | {"origin": PAGE})
        nothing = await http.get("/v1/nothing", headers={"origin": PAGE})
        assert [each.status_code for each in (whole, refused, listed, nothing)] == [200, 401, 200, 404]
        for each in (whole, refused, listed, nothing):
            assert each.headers["access-control-allow-origin"] == PAGE
            exposed = each.headers["access-control-expose-headers"]
            assert {"x-request-id", "x-porten-node", "retry-after"} <= set(exposed.split(", "))

    async def test_only_the_api_is_spoken_of(self, http):
        for path in ("/", "/sign-in", "/healthz", "/.well-known/porten", "/enroll/device"):
            assert told(await http.options(path, headers=ASKS)) == set()
            assert told(await http.get(path, headers={"origin": PAGE})) == set()

    async def test_a_header_that_is_none_is_not_named_back(self, http):
        response = await http.options(
            PATHS[0], headers=ASKS | {"access-control-request-headers": "a b; c=<script>"}
        )
        assert "access-control-allow-headers" not in response.headers


class TestAny:
    @pytest.fixture
    def settings(self):
        return {"cors_origins": ("*",)}

    async def test_the_operator_may_let_every_page_in(self, http, auth):
        assert (await http.options(PATHS[0], headers=ASKS)).headers["access-control-allow-origin"] == "*"
        answered = await ask(http, auth, origin="https://anybody.example")
        assert answered.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answered.headers
