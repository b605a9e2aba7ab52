"""The page of a run in a browser: no error, no request, every control, deep links, accessibility, paper."""

import csv
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from broken_runs import hostile_run
from synthetic import realistic_run, scaling_run

from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.run.report import page as run_page

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
WIDTHS = (390, 800, 1200)
SCHEMES = ("light", "dark")

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default::DeprecationWarning")]


class Opened(NamedTuple):
    """A page in the browser, and what it did."""

    page: Any
    messages: list[str]
    """Errors, and everything that was written to the console."""
    requests: list[str]
    """Addresses of requests, without that of the page itself."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a browser without a window; skip, with the reason, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed; install Debian's package chromium (looked for {BROWSERS})")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=root)
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("run"))


def ranks_run(folder: Path) -> Run:
    return scaling_run(
        {"torch": {1: 0.9, 2: 1.8, 4: 3.0}, "tensorflow": {2: 1.2}}, {"jax": {2: 1.9}}, folder=folder
    )


KINDS = {"real": realistic_run, "hostile": hostile_run, "ranks": ranks_run}


def written(folder: Path, kind: str = "real") -> Path:
    run = KINDS[kind](folder)
    return run_page.write(run, summarise(run))


def opened(browser: Any, file: Path, fragment: str = "", **options: Any) -> Opened:
    """Open a page in a context of its own, and wait until its script has run."""
    page = browser.new_context(reduced_motion="reduce", **options).new_page()
    found = Opened(page, [], [])
    page.on("console", lambda message: found.messages.append(message.text))
    page.on("pageerror", lambda error: found.messages.append(str(error)))
    page.on("dialog", lambda dialog: found.messages.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(f"{file.as_uri()}{fragment}")
    wait_until(page, "document.getElementById('theme').textContent.includes('colours')")
    found.requests.remove(next(one for one in found.requests if one.startswith(file.as_uri())))
    return found


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    found = opened(browser, file, viewport={"width": 1200, "height": 900})
    yield found.page
    assert found.messages == []
    assert [one for one in found.requests if not one.startswith("data:")] == []
    found.page.context.close()


def wait_until(page: Any, expression: str) -> None:
    """Wait until a JavaScript expression is true, and fail after 30 s.

    Playwright's `wait_for_function` evaluates its text inside the page from the second look on, and
    the page's policy forbids that. `evaluate` reaches the page from outside.
    """
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not true after 30 s: {expression}"
        page.wait_for_timeout(20)


def address(page: Any) -> str:
    """Return the page's address as the browser has it; Playwright's own copy comes later."""
    return str(page.evaluate("location.href"))


def shown_rows(page: Any) -> int:
    """Return how many rows of tables with choices are not hidden by a choice."""
    count: int = page.evaluate(
        "[...document.querySelectorAll('tr[data-tags]')].filter(r => !r.closest('.out')).length"
    )
    return count


# ---- at every size


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_makes_no_request_has_no_error_and_fits(
    kind: str, width: int, scheme: str, browser: Any, tmp_path: Path
) -> None:
    size = {"width": width, "height": 900}
    found = opened(browser, written(tmp_path, kind), viewport=size, color_scheme=scheme)
    assert found.messages == []
    assert [one for one in found.requests if not one.startswith("data:")] == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    back = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    found.page.context.close()


@pytest.mark.parametrize("kind", ["real", "ranks"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (800, "light"), (1200, "dark")])
def test_axe_finds_nothing_serious(width: int, scheme: str, kind: str, browser: Any, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    file = written(tmp_path, kind)
    found = opened(browser, file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    # All but the raw values, which are one table, many times over.
    found.page.evaluate(
        "document.querySelectorAll('details:not(.bulky)').forEach((one) => (one.open = true))"
    )
    violations = (
        axe.Axe()
        .run(found.page, context={"exclude": [[".group:has(.bulky) ~ .group"]]})
        .response["violations"]
    )
    serious = [
        (one["id"], one["nodes"][0]["html"][:120])
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    found.page.context.close()


def test_a_broken_page_would_be_seen(browser: Any, file: Path, tmp_path: Path) -> None:
    """The checks above fail for a request, an error and a page that is too wide."""
    html = file.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    wide = '<p style="width: 3000px">wide</p><img src="https://example.invalid/x.png"></main>'
    broken.write_text(
        html.replace("</main>", wide).replace("<meta http-equiv", "<meta name"), encoding="utf-8"
    )
    found = opened(browser, broken, viewport={"width": 390, "height": 900})
    found.page.wait_for_timeout(200)
    assert any("example.invalid" in one for one in found.requests)
    assert found.page.evaluate("document.documentElement.scrollWidth") > 390
    found.page.context.close()


def test_the_policy_stops_a_script_and_a_request_that_got_in(
    browser: Any, file: Path, tmp_path: Path
) -> None:
    html = file.read_text(encoding="utf-8")
    broken = tmp_path / "injected.html"
    evil = '<script>alert(1)</script><img src="https://example.invalid/x.png" onerror="alert(2)"></main>'
    broken.write_text(html.replace("</main>", evil), encoding="utf-8")
    found = opened(browser, broken)
    found.page.wait_for_timeout(200)
    assert not any(one.startswith("dialog") for one in found.messages)
    assert any("Content Security Policy" in one for one in found.messages)
    found.page.context.close()


# ---- the controls


def test_a_choice_hides_what_does_not_fit_and_says_how_much_is_shown(page: Any) -> None:
    every = shown_rows(page)
    page.select_option("select[name=backend]", "jax")
    shown = shown_rows(page)
    assert 0 < shown < every
    assert page.inner_text("#shown") == f"JAX: {shown} of {every} table rows are shown."
    assert "backend=jax" in address(page)
    dimmed = page.evaluate("document.querySelectorAll('.plot g.out').length")
    assert dimmed > 0, "the other bars of charts are dim"
    page.click("button[type=reset]")
    wait_until(page, "document.getElementById('shown').textContent === 'Everything is shown.'")
    assert shown_rows(page) == every
    assert "#" not in address(page)


def test_every_choice_has_an_effect_and_all_of_them_together_too(page: Any) -> None:
    selects = page.evaluate(
        "[...document.querySelectorAll('select')].map(s => [s.name, [...s.options].map(o => o.value)])"
    )
    assert {"workload", "level", "backend", "mode", "metric"} >= {name for name, _ in selects} >= {
        "workload", "backend", "mode", "metric",
    }  # fmt: skip
    text = page.inner_text("main")
    for name, values in selects:
        for value in values[1:]:
            page.select_option(f"select[name={name}]", value)
            assert page.inner_text("main") != text
        page.select_option(f"select[name={name}]", "")
    for name, values in selects:
        page.select_option(f"select[name={name}]", values[-1])
    assert page.is_visible("#shown")


def test_a_metric_hides_the_sections_of_others(page: Any) -> None:
    page.select_option("select[name=metric]", "throughput")
    assert page.is_visible("section#throughput")
    assert not page.is_visible("section#memory-and-energy")
    assert not page.is_visible("nav a[href='#memory-and-energy']")
    assert page.is_visible("section#is-it-the-same-work")


def test_a_table_is_sorted_by_numbers_and_by_text_and_goes_back(page: Any) -> None:
    table = "section#ranking-by-workload .group table"
    before = page.locator(f"{table} >> nth=0").locator("tbody th").all_inner_texts()
    head = page.locator(f"{table} >> nth=0").locator("thead th:nth-child(2)")
    rates = page.locator(f"{table} >> nth=0").locator("tbody td:nth-child(2)")
    orders = {}
    for expected in ("descending", "ascending", None):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == expected
        values = [float(one.replace(",", "")) for one in rates.all_inner_texts() if one[0].isdigit()]
        orders[expected] = values
    assert orders["descending"] == sorted(orders["descending"], reverse=True)
    assert orders["ascending"] == sorted(orders["ascending"])
    assert page.locator(f"{table} >> nth=0").locator("tbody th").all_inner_texts() == before


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            ["1.5 ms", "2 s", "30 \N{MICRO SIGN}s", "\N{EN DASH}"],
            ["2 s", "1.5 ms", "30 \N{MICRO SIGN}s", "\N{EN DASH}"],
        ),
        (["1,000", "99.5", "\N{EN DASH}", "2e-03"], ["1,000", "99.5", "2e-03", "\N{EN DASH}"]),
        (["900 MiB", "1.2 GiB"], ["1.2 GiB", "900 MiB"]),
        (["900 GFLOP/s", "1.1 TFLOP/s"], ["1.1 TFLOP/s", "900 GFLOP/s"]),
        (["\N{ALMOST EQUAL TO} 9.5 s", "10.5 s"], ["10.5 s", "\N{ALMOST EQUAL TO} 9.5 s"]),
        (["1.20\N{EN DASH}1.46\N{MULTIPLICATION SIGN}", "0.9\N{MULTIPLICATION SIGN}"], None),
    ],
)
def test_units_count_when_a_table_is_sorted(
    texts: list[str], expected: list[str] | None, browser: Any, tmp_path: Path
) -> None:
    from bench.report.blocks import Table
    from bench.report.page import document

    table = Table(heads=("name", "value"), rows=tuple(("x", one) for one in texts), numbers=frozenset({1}))
    file = tmp_path / "page.html"
    file.write_text(document([table], title="x"), encoding="utf-8")
    page = opened(browser, file).page
    page.click("thead th:nth-child(2) button")
    assert page.locator("tbody td").all_inner_texts() == (expected or texts)
    page.context.close()


def test_a_deep_link_restores_choice_order_and_place(page: Any, browser: Any, file: Path) -> None:
    page.select_option("select[name=backend]", "torch")
    page.locator("section#ranking-by-workload .group table thead button").first.click()
    page.click("nav a[href='#memory-and-energy']")
    wait_until(page, "location.hash.includes('at=memory-and-energy')")
    fragment = page.evaluate("location.hash")
    again = opened(browser, file, fragment, viewport={"width": 1200, "height": 900})
    assert again.page.input_value("select[name=backend]") == "torch"
    assert again.page.locator("th[aria-sort]").count() == 1
    assert shown_rows(again.page) == shown_rows(page)
    wait_until(
        again.page, "Math.abs(document.getElementById('memory-and-energy').getBoundingClientRect().top) < 200"
    )
    assert again.messages == []
    again.page.context.close()


def test_a_link_to_something_folded_opens_it_and_a_wrong_link_harms_nothing(browser: Any, file: Path) -> None:
    folded = opened(browser, file)
    place = folded.page.evaluate("document.querySelector('details:not([open]) table').id")
    folded.page.context.close()
    there = opened(browser, file, f"#{place}")
    assert there.page.is_visible(f"#{place}")
    wrong = "#workload=no-such&backend=<b>&sort=x:y:z,table:99:ascending,table:0:up&at=%E0%A4"
    for fragment in (wrong, "#%E0%A4%A", "#no-such-place", "#=", "#a=b"):
        odd = opened(browser, file, fragment)
        assert odd.messages == []
        assert shown_rows(odd.page) > 0
        odd.page.context.close()
    there.page.context.close()


def test_the_back_button_returns_to_the_place_before(page: Any) -> None:
    page.click("nav a[href='#throughput']")
    page.click("nav a[href='#learning']")
    page.go_back()
    assert address(page).endswith("#throughput")


def test_terms_and_marks_explain_themselves_by_pointer_and_by_keyboard(page: Any) -> None:
    page.locator("main a.term").first.hover()
    assert page.is_visible("#tip")
    assert len(page.inner_text("#tip")) > 20
    page.mouse.move(0, 0)
    page.locator("main a.term").first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.is_visible("#tip")
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip")
    page.locator("section#throughput .plot g.bar").first.hover()
    assert page.is_visible("#tip")


def test_colours_can_be_switched(page: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != before
    assert page.inner_text("#theme") == "Light colours"
    page.click("#theme")
    assert page.evaluate(colour) == before


def test_tables_and_files_can_be_saved(page: Any) -> None:
    with page.expect_download() as caught:
        page.locator("section#ranking-by-workload .group > .scroll + button.save").first.click()
    saved = list(csv.reader(io.StringIO(Path(caught.value.path()).read_text(encoding="utf-8"))))
    assert saved[0][:2] == ["framework", "samples/s"]
    assert len({len(line) for line in saved}) == 1
    with page.expect_download() as caught:
        page.click("a[download='rows.csv']")
    assert Path(caught.value.path()).read_text(encoding="utf-8").startswith("workload,backend,mode")


def test_the_keyboard_reaches_everything_and_begins_with_the_way_to_the_content(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.inner_text(":focus") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    page.locator("select[name=backend]").focus()
    page.keyboard.press("ArrowDown")
    assert page.input_value("select[name=backend]") != ""


# ---- without a script, and on paper


def test_without_its_script_the_page_shows_everything(browser: Any, file: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(file.as_uri())
    assert not page.is_visible("form.choices")
    assert page.locator("section").count() > 8
    assert page.locator("svg").count() > 5
    page.context.close()


def test_paper_shows_what_is_folded_and_no_controls(browser: Any, file: Path) -> None:
    page = opened(browser, file).page
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    hidden = page.locator("main figure.chart details table").evaluate_all(
        "found => found.filter(t => !t.offsetHeight).length"
    )
    assert hidden == 0
    assert not page.is_visible("form.choices")
    assert not page.is_visible("nav")
    with tempfile.TemporaryDirectory() as folder:
        paper = Path(folder) / "page.pdf"
        page.pdf(path=str(paper), format="A4")
        content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 < content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") < 200
    page.context.close()
