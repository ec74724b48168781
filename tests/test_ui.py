"""The runs of a real grid, as a person finds them in MLflow's UI; `--picture PATH` also takes the README's picture."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import browser
import pytest

from cifar_tuning import PROJECT_ROOT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

MISSING = browser.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

T = TypeVar("T")
PATIENCE = 60  # seconds; the UI answers within two or three where the machine has nothing else to do
# What a person sees only while the mouse is there, and the assistant's floating button.
POLISH = ".modebar, [data-assistant-ui] { display: none !important }"


@dataclass(frozen=True)
class Grid:
    """A finished multirun over learning rates.

    Args:
        rates: the learning rates as typed.
        epochs: of each job.
        uri: of its MLflow store.
        folder: its sweep's folder.
    """

    rates: list[str]
    epochs: int
    uri: str
    folder: Path

    def curves(self) -> set[tuple[float, ...]]:
        """The jobs' validation accuracies by epoch, as the training wrote them in each job's folder."""
        files = [self.folder / str(job) / "metrics.jsonl" for job in range(len(self.rates))]
        return {tuple(json.loads(line)["val/acc"] for line in file.read_text().splitlines()) for file in files}


class Page:
    """MLflow's UI in a browser; everything waits until it is there."""

    def __init__(self, driver: "Chrome", address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.driver.get(f"{self.address}/#{path}")

    def wait(self, what: Callable[[], T | None], message: str) -> T:
        """Wait until `what()` is true, also while the page redraws itself under it."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, PATIENCE, 0.1, ignored_exceptions=[StaleElementReferenceException])
        found: Any = waiting.until(lambda _: what(), message)
        return found

    def all(self, selector: str) -> "list[WebElement]":
        """The visible elements."""
        from selenium.webdriver.common.by import By

        return [element for element in self.driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]

    def find(self, selector: str, text: str = "") -> "WebElement":
        """The first visible element that contains the text."""
        found = self.wait(lambda: [e for e in self.all(selector) if text in e.text], f"no {selector} with {text!r}")
        return found[0]

    def click(self, selector: str, text: str = "") -> None:
        """Click it."""
        from selenium.common.exceptions import ElementClickInterceptedException

        def clicked() -> bool:
            try:
                self.find(selector, text).click()
            except ElementClickInterceptedException:  # something is still moving away
                return False
            return True

        self.wait(clicked, f"{selector} with {text!r} can't be clicked")

    def script(self, code: str) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(code)

    def drag(self, selector: str, right: int, down: int) -> None:
        """Drag something, which may show itself only under the mouse, by so many pixels."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.by import By

        handle = self.driver.find_element(By.CSS_SELECTOR, selector)
        chain = ActionChains(self.driver).move_to_element(handle).click_and_hold()
        chain.move_by_offset(right // 2, down // 2).move_by_offset(right - right // 2, down - down // 2)
        chain.release().move_to_element(self.find("h2, h3")).perform()

    def unfold(self) -> "dict[str, WebElement]":
        """In the list of runs, unfold the only one there is; gives the links of all runs by their names."""
        assert len(self.wait(self.links, "no runs in the list")) == 1
        self.click("[row-id] .ag-cell button")
        return self.wait(lambda: found if len(found := self.links()) > 1 else None, "no child runs")

    def links(self) -> "dict[str, WebElement]":
        """The runs in the list, from top to bottom."""
        found = [link for link in self.all("[row-id] a[href*='/runs/']") if link.text]
        return {link.text: link for link in sorted(found, key=lambda link: link.location["y"])}


@pytest.fixture(scope="module")
def grid(
    cifar10: Path, pristine_database: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Grid:
    """A grid over learning rates, trained by the command that a user would type."""
    tmp_path = tmp_path_factory.mktemp("ui")
    (tmp_path / "mlflow.db").write_bytes(pristine_database.read_bytes())
    rates, epochs, images = ["0.1", "0.01", "0.001"], 2, 500
    if pytestconfig.getoption("--picture"):  # curves worth looking at
        rates, epochs, images = ["0.1", "0.05", "0.01", "0.001"], 8, 10000
    made = Grid(rates, epochs, f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "simplenn" / "learning_rates")
    overrides = [
        f"optimizer.lr={','.join(rates)}",
        f"trainer.epochs={epochs}",
        f"data.train_limit={images}",
        f"data.root={cifar10}",
        "augmentation=crop_flip",
        "model.batch_norm=true",
        f"tracking.uri={made.uri}",
        f"hydra.sweep.dir={made.folder}",
    ]
    done = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "train.py"), "-m", *overrides],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def server(grid: Grid) -> Iterator[str]:
    """MLflow's UI over the grid's store."""
    with browser.mlflow_ui(grid.uri, grid.folder.parent / "mlflow_ui.log") as address:
        yield address


@pytest.fixture
def page(server: str, tmp_path: Path) -> Iterator[Page]:
    """An empty browser."""
    with browser.chromium(tmp_path / "profile", 1300, 740) as driver:
        yield Page(driver, server)


def test_jobs_are_nested_under_their_sweep(page: Page, grid: Grid) -> None:
    page.open("/experiments/1/runs")
    links = page.unfold()
    (parent, parent_link), *children = links.items()
    assert parent == "simplenn/learning_rates"
    assert {name for name, _ in children} == {f"{job}: optimizer.lr={rate}" for job, rate in enumerate(grid.rates)}
    indents = {link.location["x"] - parent_link.location["x"] for _, link in children}
    assert min(indents) > 0, "the jobs are not indented under their sweep"


def test_comparison_shows_what_differs_between_jobs(page: Page, grid: Grid) -> None:
    page.open("/experiments/1/runs")
    page.unfold()
    for row in range(1, len(grid.rates) + 1):
        page.click(f"[row-index='{row}'] .ag-selection-checkbox")
    page.click("button", "Compare")
    cells = page.wait(lambda: _cells_beside(page, "optimizer.lr"), "no optimizer.lr in the comparison")
    assert sorted(cells) == sorted(grid.rates)
    assert set(_cells_beside(page, "trainer.epochs")) == {str(grid.epochs)}


def test_chart_shows_every_jobs_validation_curve(page: Page, grid: Grid, pytestconfig: pytest.Config) -> None:
    picture = pytestconfig.getoption("--picture")
    page.open("/experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning")
    page.unfold()
    page.find("input[placeholder='Search metric charts']").send_keys("val/acc$")
    points = len(grid.rates) * (grid.epochs + 1)  # step 0 is before training
    drawn = ".js-plotly-plot .scatterlayer .point"
    page.wait(lambda: len(page.all(drawn)) == points, f"there are not {points} points in the chart of val/acc")
    curves = _curves(page)
    assert {steps for steps, _ in curves} == {tuple(range(grid.epochs + 1))}
    assert {values for _, values in curves} == grid.curves()
    if picture:
        take(page, Path(picture).absolute())


def take(page: Page, path: Path) -> None:
    """Take the README's picture: the chart large, the jobs' names readable, nothing that only tools or mice need."""
    page.click("button[data-component-id='mlflow_header.toggle_sidebar_button']")
    page.click("[row-index='0'] label:has(.is-visibility-toggle-checkbox)")  # the sweep has no curve of its own
    page.script(f"document.head.appendChild(document.createElement('style')).textContent = `{POLISH}`")
    page.drag("[handleaxis='e'] .bar", right=90, down=0)
    page.drag("[data-testid='draggable-card-resize-handle']", right=520, down=50)
    page.wait(lambda: page.find(".js-plotly-plot").size["width"] > 600, "the chart did not grow")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.driver.get_screenshot_as_png())


def _cells_beside(page: Page, name: str) -> list[str]:
    """The values of a row of the comparison's tables."""
    rows = page.script("return [...document.querySelectorAll('tr')].map(row => row.innerText.split(/[\\t\\n]+/))")
    return next((row[1:] for row in rows if row[0] == name), [])


def _curves(page: Page) -> set[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Steps and values of every line of every chart on the page."""
    lines = page.script(
        "return [...document.querySelectorAll('.js-plotly-plot')]"
        ".flatMap(plot => plot.data.map(line => [Array.from(line.x), Array.from(line.y)]))"
    )
    return {(tuple(steps), tuple(values)) for steps, values in lines if steps}
