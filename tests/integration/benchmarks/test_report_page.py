"""A report in a real browser: light and dark, wide and on a phone, for everybody, and alone."""

from pathlib import Path

import msgspec
import playwright.async_api as pw
import pytest
from axe_playwright_python.async_playwright import Axe

from benchmarks.figures.bounds import Better, Bound, Figure
from benchmarks.figures.statistics import bootstrap_median
from benchmarks.reports import document
from benchmarks.reports.drawable import bars, cdf, present
from benchmarks.reports.overlay import Named
from benchmarks.reports.result import Axis, Group, Made, Plot, Remark, Result, group, value

pytestmark = pytest.mark.browser
LOOKS = [("light", 1280), ("dark", 360)]


def result(name: str, scale: float) -> Named:
    """One with everything that a report can hold."""
    values = [scale * each for each in (1.0, 1.01, 0.99, 1.02, 0.98)]
    found = bootstrap_median(values, seed=0)
    figures = [
        Figure(
            key="time", name="time of a decision with many nodes", unit="us", found=found, bound=Bound(1.0)
        ),
        Figure(key="rate", name="rate", unit="/s", found=1000 * scale, which_is_better=Better.MORE),
    ]
    told = [value(figure) for figure in figures]
    distribution = Plot(
        key="cdf",
        title="TTFT of all requests",
        kind="cdf",
        x=Axis(name="TTFT", unit="ms", log=True),
        y=Axis(name="share of requests"),
        lines=[cdf("all", values)],
        marks={"objective": scale},
    )
    made = Made(
        at="2026-01-01T00:00:00+00:00", command=["porten-bench"], environment={"cpu": "One"}, quick=True
    )
    return Named(
        name,
        Result(
            benchmark="policy",
            made=made,
            settings={"seed": 5},
            groups=[
                group("Against bounds", figures),
                group("Sides", [], sides=("engine", "node")),
                Group(title="Each step", figures=[msgspec.structs.replace(told[1], key="c1")], detail=True),
            ],
            plots=present([distribution, bars("b", "Bars", {"a": {"one": told[0]}, "b": {"two": told[0]}})]),
            refusals=[Remark(code="generator_saturated", text="The generator was the slow part.")],
        ),
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(document.html([result("before", 1.0), result("after", 1.1)]), encoding="utf-8")
    return file


async def test_the_page_looks_and_reads_as_it_should(page_file: Path, chromium: str) -> None:
    axe, asked, said = Axe(), list[str](), list[str]()
    async with pw.async_playwright() as player:
        browser = await player.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme, width in LOOKS:
            context = await browser.new_context(
                viewport={"width": width, "height": 800},
                color_scheme="dark" if scheme == "dark" else "light",
                bypass_csp=True,  # for axe alone, which is a script
            )
            page = await context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            await page.goto(page_file.as_uri())
            wide, narrow = page.locator(".wide svg").first, page.locator(".narrow svg").first
            assert await wide.is_visible() == (width > 600)
            assert await narrow.is_visible() == (width < 600)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            await page.locator("details.detail > summary").press("Enter")
            assert await page.get_by_role("table", name="Each step").is_visible()
            found = (await axe.run(page)).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"]) for each in found] == [], (scheme, width)
            await context.close()
        await browser.close()
    assert asked == [page_file.as_uri()] * len(LOOKS)
    assert said == []
