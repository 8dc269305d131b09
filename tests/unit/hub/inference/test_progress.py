"""How long a load still takes."""

from msgspec.structs import replace

from hub.progress import Loads


def test_the_mean_rate_of_the_present_phase_tells_the_time_left(fakes):
    warming = replace(
        fakes.report(state="warming").models[0], phase="downloading", total_bytes=100, done_bytes=10
    )
    loads = Loads()
    loads.report([warming], now=0)
    assert loads.eta_s("tiny") is None, "one report is no rate"
    loads.report([replace(warming, done_bytes=30)], now=2)
    assert loads.eta_s("tiny") == 7.0
    loads.report([replace(warming, done_bytes=60)], now=10)
    assert loads.eta_s("tiny") == 8.0
    loads.report([replace(warming, phase="loading", done_bytes=0)], now=11)
    assert loads.eta_s("tiny") is None, "another phase has another rate"
    loads.report([replace(warming, state="ready")], now=12)
    assert loads.eta_s("tiny") is None
    assert loads.eta_s("unheard of") is None
