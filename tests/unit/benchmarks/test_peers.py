"""Which peers are chosen, and what is said of one that is not here."""

from pathlib import Path

import pytest

from benchmarks.errors import SettingInvalid
from benchmarks.generator.workloads import TWINS, Fixed
from benchmarks.overhead.measuring import OverheadPlan, RealLoads, ScriptedLoads
from benchmarks.overhead.peers import choose_peers, peers_cache
from benchmarks.overhead.recipes import LiteLLM, known_peers
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.stack import SharedData

KNOWN = known_peers(Path("/no/such/cache"))


def test_peers_are_chosen_by_name_and_each_once() -> None:
    assert choose_peers("all", KNOWN) == KNOWN
    assert choose_peers("none", KNOWN) == ()
    assert [peer.name for peer in choose_peers("ssh-R,nginx,ssh-R", KNOWN)] == ["ssh-R", "nginx"]
    with pytest.raises(SettingInvalid, match="all, none, nginx, ssh-R, litellm; not 'squid'"):
        choose_peers("nginx,squid", KNOWN)


def test_what_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    monkeypatch.setattr("benchmarks.overhead.recipes._PLACES", ())
    said = {peer.name: peer.missing() for peer in KNOWN}
    assert said == {
        "nginx": "no nginx: on Debian, apt-get install nginx-light",
        "ssh-R": "no sshd: on Debian, apt-get install openssh-server",
        "litellm": "no LiteLLM in /no/such/cache/litellm: --install-peers installs it from PyPI",
    }


def test_a_peer_is_there_once_its_program_is(tmp_path: Path) -> None:
    peer = LiteLLM(tmp_path)
    assert peer.missing()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "litellm").touch()
    assert peer.missing() is None


def test_the_cache_is_where_the_user_has_caches() -> None:
    assert peers_cache({"XDG_CACHE_HOME": "/caches"}) == Path("/caches/porten-bench")
    assert peers_cache({}) == Path.home() / ".cache" / "porten-bench"


def test_there_are_words_for_every_side() -> None:
    assert len(KNOWN) + len(("engine", "node", "hub")) <= TWINS


def test_quick_is_smaller_in_everything() -> None:
    real = RealLoads(EngineChoice(SharedData(Path("/"))), (1, 8), Fixed(32), Fixed(64))
    for asked in (ScriptedLoads(), real):
        whole = OverheadPlan(asked)
        quick = whole.quick()
        assert quick.rounds < whole.rounds
        per_run = [
            sum(load.requests * load.workload.request(0).output_tokens for load in plan.compare_plan().loads)
            for plan in (quick, whole)
        ]
        assert per_run[0] < per_run[1] / 2
