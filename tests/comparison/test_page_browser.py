"""Pages in a real browser: Chromium of the system, driven by Selenium.

Skipped where there is none; Debian's packages are chromium and chromium-driver.
"""

import shutil

import pytest
from cases import slow
from page_frames import HOSTILE, make_frame
from test_page import make_fit, make_front

from dacrl_env.comparison import fit_page, report
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.suite_report import About, write_suite

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no browser: apt-get install chromium chromium-driver",
    ),
    # of Selenium's connection, closed by its end
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WIDTHS = (400, 1_400)
READY = "return document.querySelectorAll('.figure .main-svg').length"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    means = dict(zip(HOSTILE, (0.5, 0.9, 0.2, 0.5, 0.6), strict=True))
    frame = make_frame(means, seeds=3)
    paths = {"comparison": report.write_report(frame, out / "one").page}
    about = About("mine", "auc", None, {"one": "one"})
    summaries = {"one": report.summarize(frame)}
    paths["suite"] = write_suite(summaries, out, about).page
    made = Made(commands=["dacrl fit"])
    page = fit_page.fit_page(make_fit(), HOSTILE[0], "one", "a.json", made)
    paths["fit"] = page.write(out / "fit.html")
    fitted = make_front(make_fit())
    page = fit_page.fit_page(
        fitted, HOSTILE[1], HOSTILE[2], "a.json", made, [HOSTILE[0], HOSTILE[3]]
    )
    paths["front"] = page.write(out / "front.html")
    return {name: path.as_uri() for name, path in paths.items()}


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = selenium.Chrome(options, service=selenium.ChromeService(DRIVER))
    yield made
    made.quit()


@pytest.fixture
def opened(browser, addresses):
    """Opens a page at a width; afterwards nothing was wrong in it."""

    def open_page(name, width=1_400, dark=False):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(addresses[name])
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    script = "return performance.getEntriesByType('resource').map((one) => one.name)"
    assert browser.execute_script(script) == []
    assert browser.title != "in"
    assert not browser.find_elements("css selector", "img, iframe, object, b")


def traces(browser, name):
    """What Plotly shows of each trace of the first figure."""
    return browser.execute_script(
        f"return document.querySelector('.figure').data.map((one) => one.{name})"
    )


def click(browser, selector, place=0):
    found = browser.find_elements("css selector", selector)[place]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    found.click()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["comparison", "suite", slow("fit"), slow("front")])
def test_it_fits_the_width_and_says_nothing_on_the_console(opened, name, width):
    browser = opened(name, width)
    assert browser.execute_script(READY) > 0
    script = "return [document.documentElement.scrollWidth, window.innerWidth]"
    needed, there = browser.execute_script(script)
    assert there == width
    assert needed <= there
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main > *, .main-svg, button, dd')]"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    size = "return parseFloat(getComputedStyle(document.querySelector('td')).fontSize)"
    assert browser.execute_script(size) >= 12


def test_no_button_sends_a_figure_to_anybody(opened):
    browser = opened("comparison")
    buttons = {
        button.get_attribute("data-title")
        for button in browser.find_elements("css selector", ".modebar-btn")
    }
    assert buttons == {
        *("Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out"),
        "Reset axes",
    }
    script = "return document.querySelector('.figure')._context"
    context = browser.execute_script(script)
    assert not context["showSendToCloud"]
    assert context["plotlyServerURL"] == ""
    # what is downloaded is made in the page
    image = browser.execute_async_script(
        "Plotly.toImage(document.querySelector('.figure')).then(arguments[0])"
    )
    assert image.startswith("data:image/png")


def test_a_curve_tells_more_under_the_pointer(opened):
    from selenium.webdriver import ActionChains

    browser = opened("comparison")
    click(browser, ".runs", 1)
    figure = browser.find_element("css selector", ".figure")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    x, y = browser.execute_script(
        """
        const place = document.querySelector(".figure");
        const {xaxis, yaxis} = place._fullLayout;
        const run = place.data.find((one) => one.meta.part === "runs");
        const box = place.getBoundingClientRect();
        return [xaxis._offset + xaxis.d2p(run.x[9]) - box.width / 2,
          yaxis._offset + yaxis.d2p(run.y[9]) - box.height / 2];
        """
    )
    ActionChains(browser).move_to_element_with_offset(figure, x, y).perform()
    text = browser.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done("
        "document.querySelector('.hoverlayer').textContent), 150)"
    )
    assert "seed" in text
    assert "inner training environment steps: 4,500" in text


def test_a_click_on_a_policy_hides_its_curves(opened):
    browser = opened("comparison")
    before = traces(browser, "visible")
    assert all(before)
    click(browser, ".policy", 1)
    meta = traces(browser, "meta.policy")
    assert traces(browser, "visible") == [policy != 1 for policy in meta]
    button = browser.find_elements("css selector", ".policy")[1]
    assert button.get_attribute("aria-pressed") == "false"
    drawn = "return document.querySelectorAll('.figure .scatterlayer .trace').length"
    less = browser.execute_script(drawn)
    click(browser, ".policy", 1)
    assert traces(browser, "visible") == before
    assert browser.execute_script(drawn) > less


def test_a_click_shows_single_runs(opened):
    browser = opened("comparison")
    mean = traces(browser, "meta.part").count("runs")
    assert mean == 0
    click(browser, ".runs", 2)
    parts = zip(
        traces(browser, "meta.policy"), traces(browser, "meta.part"), strict=True
    )
    assert {policy for policy, part in parts if part == "runs"} == {2}
    gaps = browser.execute_script(
        "return document.querySelector('.figure').data"
        ".find((one) => one.meta.part === 'runs').x.filter((x) => x === null).length"
    )
    assert gaps == 3  # one after each of three runs
    click(browser, ".all-runs")
    assert traces(browser, "meta.part").count("runs") == 3 * len(HOSTILE)
    click(browser, ".all-runs")
    assert traces(browser, "meta.part").count("runs") == 0


def test_runs_of_a_fit_are_there_at_once(opened):
    browser = opened("fit")
    assert traces(browser, "meta.part").count("runs") == 2
    click(browser, ".runs")
    assert traces(browser, "meta.part").count("runs") == 0


def figures(browser, script):
    """What a script, a function of a figure, says of each."""
    return browser.execute_script(
        f"return [...document.querySelectorAll('.figure')].map({script})"
    )


def test_a_front_is_above_the_runs_behind_it(opened):
    browser = opened("front")
    front, tried = (
        browser.execute_script(
            "const one = document.querySelector('.figure > div').data"
            ".find((trace) => trace.meta.part === arguments[0]);"
            "return [one.x, one.y, one.hovertext ?? one.text, one.line?.shape]",
            part,
        )
        for part in ("front", "tried")
    )
    assert front[:2] == [[100, 400], [0.25, 0.5]]
    assert front[2][0].startswith("2 of the front<br>observed auc: 0.25<br>")
    assert front[3] == "hv"
    assert len(tried[0]) == 4
    assert set(tried[0]) == {100, 200, 300, 400}


def test_lineages_are_drawn_as_steps_over_members(opened):
    browser = opened("front")
    titles = figures(
        browser, "(one) => one.layout ? one.layout.annotations.map((a) => a.text) : []"
    )
    place = [title[:1] for title in titles].index(["member"])
    shapes = figures(browser, "(one) => (one.data ?? []).map((t) => t.line?.shape)")
    assert set(shapes[place]) == {"vh", "linear"}
    names = figures(
        browser,
        "(one) => (one.data ?? []).filter((t) => t.meta.part === 'runs')"
        ".map((t) => t.text.join())",
    )
    assert "member 0 to decision 2, then member 1 to decision 5" in names[place][0]


def test_lines_tell_names_as_they_are_under_the_pointer(opened):
    browser = opened("comparison")
    script = """
        const [place, number, done] = arguments;
        const axis = place.data[number].yaxis.replace(/^y$/, "");
        Plotly.Fx.unhover(place);
        setTimeout(() => { // of hovering there is no more than one in 50 ms
          Plotly.Fx.hover(place, [{curveNumber: number, pointNumber: 3}], `xy${axis}`);
          done(place.querySelector(".hoverlayer").textContent.replaceAll(" ", ""));
        }, 70);
    """
    figure = browser.find_element("css selector", ".figure")
    texts = [
        browser.execute_async_script(script, figure, place)
        for place, part in enumerate(traces(browser, "meta.part"))
        if part == "middle"
    ]
    for name in HOSTILE:
        assert any(name.replace(" ", "") in text for text in texts), texts
    assert any("score(0random,1reference):" in text for text in texts)
    assert not browser.find_elements("css selector", ".figure a[href^=javascript]")


def test_a_click_on_a_column_sorts_the_runs(opened):
    browser = opened("comparison")
    script = """
        const table = [...document.querySelectorAll("table")].pop();
        const heads = [...table.tHead.rows[0].cells];
        const place = heads.findIndex((one) => one.textContent === arguments[0]);
        heads[place].click();
        const cells = [...table.tBodies[0].rows].map((row) => row.cells[place]);
        return [cells.map((one) => one.textContent), heads[place].ariaSort];
    """
    cells, order = browser.execute_script(script, "report_auc")
    values = [float(cell) for cell in cells]
    assert (values, order) == (sorted(values), "ascending")
    assert min(values) < 0.2 < max(values)
    cells, order = browser.execute_script(script, "report_auc")
    values = [float(cell) for cell in cells]
    assert (values, order) == (sorted(values, reverse=True), "descending")
    cells, _ = browser.execute_script(script, "training steps")
    assert cells[0] == "10,000"
    cells, _ = browser.execute_script(script, "policy")
    assert cells == sorted(cells, key=str.lower)


def test_negative_and_small_numbers_are_sorted_as_numbers(opened):
    browser = opened("fit")
    cells = browser.execute_script(
        """
        const table = document.querySelector("table");
        const rows = [...table.tBodies[0].rows];
        ["1e-05", "-2.5", "5,000 + 1", "–"].forEach((text, k) => {
          rows[k].cells[4].textContent = text;
        });
        table.tHead.rows[0].cells[4].click();
        return [...table.tBodies[0].rows].map((row) => row.cells[4].textContent);
        """
    )
    assert cells == ["–", "-2.5", "1e-05", "5,000 + 1"]


@pytest.mark.slow
def test_black_is_white_in_the_dark(opened):
    browser = opened("comparison", dark=True)
    first = "return document.querySelector('.figure').data.find("
    first += "(one) => one.meta.part === 'middle').line.color"
    assert browser.execute_script(first) == "#ffffff"
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(paper) == "rgb(21, 23, 26)"
    browser = opened("comparison")
    assert browser.execute_script(first) == "#000000"
