"""No code of the Hub gets at nodes past the policy: whoever reads live nodes asks it, or says why not.

The source is read, not run. Live nodes and their sessions are in `hub.registry.Registry` alone, so every
use of one is looked for, function by function: a method of it, or the registry itself handed on. A function
that gets nodes to serve from must come to one of `ASKS`, itself or through functions of its own module. What
is read only to be shown or kept in order has a row below that says why it needs no predicate. What is new has
neither, and fails here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import hub

ROOT = Path(hub.__file__).parent
ASKS = {"permits", "select_replica", "why_not", "chooser", "_finder", "explain"}
"""The predicate, and what gives no answer but by it: the router, its chooser, who finds by that; explain."""

KEEPS_ORDER = "starts, stops and tells the registry; chooses nothing"
SHOWS_OWN = "shows an organisation's nodes to its own people, and to operators; gives no node work"
ACCOUNTS = "of a node that was chosen: what it said of the model, and the count of what it has"
REASONS = {
    "hub.assembly.Copies.incomplete": KEEPS_ORDER,
    "hub.assembly.Copies.reload": KEEPS_ORDER,
    "hub.assembly.Copies.complete": KEEPS_ORDER,
    "hub.assembly.Copies.forget": KEEPS_ORDER,
    "hub.assembly.compose": KEEPS_ORDER,
    "hub.serve.running": KEEPS_ORDER,
    "hub.serve._tunnels": KEEPS_ORDER,
    "hub.dispatch.Dispatcher.__init__": KEEPS_ORDER,
    "hub.queueing.WaitingRoom.__init__": KEEPS_ORDER,
    "hub.spreading.Spreader.__init__": KEEPS_ORDER,
    "hub.spreading.Spreader._is_over": "whether a node that was given a job is still here",
    "hub.spreading.Spreader._sacrifice": "what permitted nodes said of themselves; Jobs.give judges again",
    "hub.dispatch.Dispatch._digest": ACCOUNTS,
    "hub.finding.Finder._check_offer": ACCOUNTS,
    "hub.finding.Finder._is_mute": ACCOUNTS,
    "hub.api.models._merged": "of nodes that its callers were permitted: what they said of the model",
    "hub.portal.node_list._views": SHOWS_OWN,
    "hub.portal.node_list.online_ids": SHOWS_OWN,
    "hub.portal.nodes._node_page": SHOWS_OWN,
    "hub.portal.overview.overview": SHOWS_OWN,
    "hub.portal.overview._draining": SHOWS_OWN,
    "hub.portal.keys.key_preview_of": "which of its own nodes are online; who matches is permits' word",
    "hub.portal.models._reports": "of nodes that the chooser was permitted: what they said of the model",
    "hub.portal.models._rows": SHOWS_OWN,
    "hub.portal.region_pages._waiting": SHOWS_OWN,
    "hub.portal.region_pages.confirm_place": SHOWS_OWN,
    "hub.portal.playground._chats": "of nodes that the chooser was permitted: what they said of the model",
    "hub.api.admin.nodes.list_nodes": SHOWS_OWN,
    "hub.api.admin.nodes._now": SHOWS_OWN,
    "hub.api.admin.nodes._shown": SHOWS_OWN,
    "hub.api.admin.hub_wide.list_models": SHOWS_OWN,
    "hub.api.admin.keys.explain_key": "hands it on to own_verdicts and others_counted, which ask",
    "hub.api.admin.jobs.give_job": "hands it on to give_by_hand",
    "hub.portal.key_explain._rows": "hands it on to own_verdicts, which asks",
    "hub.portal.key_explain._others": "hands it on to others_counted, which asks",
    "hub.portal.node_models.give_job": "hands it on to give_by_hand",
    "hub.jobs_by_hand.give_by_hand": "whether a node offers a model; the job is judged by Jobs.give",
}
MUST_ASK = {"candidates", "session", "room", "occupy"}
"""What leads to a node being given work. No reason excuses these; wiring names them without calling."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        if name not in ("hub.registry", "hub.metrics"):  # itself; and Prometheus's thing of that name
            yield name, ast.parse(path.read_text())


def functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Every function with its qualified name; one inside another belongs to the outer."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}.{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{node.name}", node
        else:
            yield from functions(node, prefix)


def is_registry(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lstrip("_") == "registry"


def uses(function: ast.AST) -> set[str]:
    """The registry's methods that a function names; `itself` where the registry is handed on as a whole."""
    attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    parts = [node for node in attributes if is_registry(node.value)]
    named, inner = {node.attr for node in parts}, {id(node.value) for node in parts}
    bare = any(
        is_registry(node) and id(node) not in inner and not isinstance(getattr(node, "ctx", None), ast.Store)
        for node in ast.walk(function)
    )
    return named | ({"itself"} if bare else set())


def names(function: ast.AST) -> set[str]:
    """The last part of every name that a function mentions."""
    return {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute | ast.Name)
    }


def called(function: ast.AST) -> set[str]:
    return {
        node.func.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and is_registry(node.func.value)
    }


def asks(found: dict[str, ast.AST], name: str) -> bool:
    """Whether a function comes to the predicate, by its own module's functions if need be."""
    seen: set[str] = set()
    open_ends = [name]
    while open_ends:
        current = open_ends.pop()
        seen.add(current)
        mentioned = names(found[current])
        if mentioned & ASKS:
            return True
        open_ends += [other for other in found if other.rpartition(".")[2] in mentioned and other not in seen]
    return False


def report(name: str, tree: ast.Module) -> dict[str, str]:
    """What is wrong with each function of a module."""
    found = dict(functions(tree, name))
    wrong = {}
    for function, body in found.items():
        used = uses(body)
        if not used or asks(found, function):
            continue
        if function not in REASONS:
            wrong[function] = f"reads {sorted(used)} and neither asks the policy nor is listed with a reason"
        elif called(body) & MUST_ASK:
            wrong[function] = f"calls {sorted(called(body) & MUST_ASK)} without asking the policy"
    return wrong


def test_whoever_reads_live_nodes_asks_the_policy_or_says_why_not() -> None:
    assert {function: why for name, tree in modules() for function, why in report(name, tree).items()} == {}


def test_every_reason_is_still_needed() -> None:
    named = {
        function
        for name, tree in modules()
        for function, body in functions(tree, name)
        if uses(body) and not asks(dict(functions(tree, name)), function)
    }
    assert set(REASONS) - named == set()


def test_the_paths_of_a_request_are_among_what_is_looked_at() -> None:
    """Were the registry renamed, nothing would be found: so what must be there is named."""
    looked_at = {
        function for name, tree in modules() for function, body in functions(tree, name) if uses(body)
    }
    known = {"hub.finding.Finder._take", "hub.dispatch.Dispatch._open", "hub.api.models.offers"}
    assert known <= looked_at


SMUGGLED = {
    "a method": "def serve(hub):\n    return hub.registry.snapshot()",
    "an alias": "def serve(hub):\n    known = hub.registry\n    return known.candidates('m')",
    "inside another": "def serve(hub):\n    def inner():\n        return hub.registry.candidates('m')",
    "a private name": "class Placer:\n    def place(self):\n        return self._registry.connected_nodes()",
    "handed on": "def serve(hub):\n    return Placer(hub.registry)",
}


def test_what_is_new_fails() -> None:
    for how, source in SMUGGLED.items():
        assert report("hub.new", ast.parse(source)), how
    asking = "def serve(hub):\n    return [n for n in hub.registry.candidates('m') if permits(p, n.facts, t)]"
    assert report("hub.new", ast.parse(asking)) == {}


def test_a_reason_excuses_no_choosing(monkeypatch) -> None:
    monkeypatch.setitem(REASONS, "hub.new.serve", "because")
    assert report("hub.new", ast.parse("def serve(hub):\n    return hub.registry.session('n')"))
    assert not report("hub.new", ast.parse("def serve(hub):\n    return hub.registry.snapshot()"))


def test_only_the_dispatcher_and_the_jobs_get_sessions() -> None:
    """A session is what work goes through: of all the Hub's code two places take one, and both ask first."""
    named = {name for name, tree in modules() for _, body in functions(tree, name) if "session" in uses(body)}
    assert named == {"hub.dispatch", "hub.assembly"}, "assembly hands it to Jobs, which asks in `give`"


def test_who_asks_without_a_secret_is_let_in_at_one_place() -> None:
    """Past `authenticate` there is one more way to be a caller: the portal's, for people of the key's own."""
    named = {
        function
        for path in sorted(ROOT.rglob("*.py"))
        for function, body in functions(ast.parse(path.read_text()), path.stem)
        if path.stem != "admission" and any(is_admit(node) for node in ast.walk(body))
    }
    assert named == {"playground.chat"}


def is_admit(node: ast.AST) -> bool:
    """Whether something is done with `admission.admit`; storage's `admit` of a node is another thing."""
    owner = node.value if isinstance(node, ast.Attribute) and node.attr == "admit" else None
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name.lstrip("_") == "admission"
