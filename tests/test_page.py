"""The page in a real browser: upload, paste, draw, an unreadable file, a phone, dark, keyboard."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Launch, patterns
from test_serve import Server, Start, png
from test_serve import start as start  # a fixture

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

IMAGES, LABELS = patterns(10, seed=9)


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start("--index")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, loaded; afterwards the console was silent and nobody else was asked."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    home = f"http://127.0.0.1:{server.port}/"
    page.goto(home)
    page.locator("#title", has_text="alexnet-28").wait_for()
    yield page
    # A browser writes of every answer that is not 200.
    assert [text for text in said if "status of 422" not in text] == []
    assert all(url.startswith((home, "data:", "blob:")) for url in asked)
    context.close()


def picture(page: Any, name: str) -> None:
    """Kept to be looked at, where ALEXNET_PICTURES names a folder."""
    if folder := os.environ.get("ALEXNET_PICTURES"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def first(page: Any) -> str:
    page.wait_for_selector("#top li")
    return str(page.text_content("#top li:first-child .name span"))


def upload(page: Any, data: bytes, name: str = "a.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})


def test_upload(page: Any) -> None:
    upload(page, png(IMAGES[4]))
    assert first(page) == str(LABELS[4])
    assert page.locator("#top li").count() == 5
    widths = [float(w) for w in page.eval_on_selector_all(
        ".bar", "all => all.map(b => b.getBoundingClientRect().width)")]  # fmt: skip
    assert widths == sorted(widths, reverse=True)
    assert page.text_content("#said").startswith(f"{LABELS[4]}, ")
    assert page.is_visible("#seen")
    picture(page, "upload")


def explained(page: Any, name: str) -> str:
    """Waits until the evidence for a class is shown; what is said of it."""
    page.locator("#told", has_text=f"Evidence for {name}: ").wait_for()
    return str(page.text_content("#told"))


def test_why(page: Any) -> None:
    """Evidence over the image, filters and neighbours; another class at a click; every picture
    loads and says what it is."""
    upload(page, png(IMAGES[4]))
    name = first(page)
    assert re.search(r"(at the|in the middle|finds nothing)", explained(page, name))
    assert page.locator("#filters li").count() == 8
    assert page.locator("#neighbors li").count() == 6
    assert page.text_content("#h-near") == "Nearest of 540 training images"
    assert page.locator("#neighbors li.same").count() >= 5  # the patterns are learnt
    pictures = page.evaluate(
        """[...document.images].filter(i => i.offsetParent)
        .map(i => [i.complete && i.naturalWidth, i.alt])"""
    )
    assert len(pictures) == 1 + 2 + 16 + 6
    assert all(loaded and alt for loaded, alt in pictures)
    boxes = page.evaluate(
        "['given', 'heat'].map(i => document.getElementById(i).getBoundingClientRect().toJSON())"
    )
    assert boxes[0] == boxes[1], "the evidence lies over the image"
    before = page.get_attribute("#heat", "src")
    picture(page, "why")
    other = page.locator("#top li button").nth(2)
    other.focus()
    page.keyboard.press("Enter")
    explained(page, str(other.locator(".name span").text_content()))
    assert page.get_attribute("#heat", "src") != before
    assert [b.get_attribute("aria-pressed") for b in page.locator("#top button").all()] == [
        "false", "false", "true", "false", "false",
    ]  # fmt: skip
    page.click("text=Show the evidence")
    assert not page.is_visible("#heat")


def test_an_unreadable_file_and_then_a_good_one(page: Any) -> None:
    upload(page, png(IMAGES[1]))
    first(page)
    upload(page, b"nothing at all", "notes.png")
    page.wait_for_selector("#said.bad")
    assert "not an image" in page.text_content("#said")
    assert page.locator("#top li").count() == 0
    assert not page.is_visible("#whole"), "nothing is explained that was not seen"
    picture(page, "unreadable")
    upload(page, png(IMAGES[1]))
    assert first(page) == str(LABELS[1])
    assert page.get_attribute("#said", "class") == "quiet"


def test_a_file_that_is_too_large_is_not_sent(page: Any) -> None:
    upload(page, bytes(8 * 2**20 + 1))
    page.wait_for_selector("#said.bad")
    assert "too large" in page.text_content("#said")


def send(page: Any, kind: str, data: bytes) -> None:
    """A paste or a drop of a file, as the browser hands it over."""
    page.evaluate(
        """([kind, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
          const options = {bubbles: true, cancelable: true};
          document.body.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", {...options, clipboardData: transfer})
            : new DragEvent("drop", {...options, dataTransfer: transfer}));
        }""",
        [kind, list(data)],
    )


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page: Any, kind: str) -> None:
    send(page, kind, png(IMAGES[7]))
    assert first(page) == str(LABELS[7])


def test_draw_and_clear(page: Any) -> None:
    box = page.locator("#pad").bounding_box()
    x, y, w = box["x"], box["y"], box["width"]
    page.evaluate(
        """() => { const real = window.fetch; window.fetch = async (to, options) => {
          window.sent = [...new Uint8Array(await options.body.arrayBuffer())];
          return real(to, options); } }"""
    )
    page.mouse.move(x + 0.3 * w, y + 0.2 * w)
    page.mouse.down()
    page.mouse.move(x + 0.6 * w, y + 0.2 * w, steps=5)
    page.mouse.move(x + 0.5 * w, y + 0.8 * w, steps=5)
    page.mouse.up()
    first(page)
    picture(page, "draw")
    with Image.open(io.BytesIO(bytes(page.evaluate("window.sent")))) as drawn:
        grey = drawn.convert("L")
        left, top, right, bottom = grey.point(lambda v: 255 * (v > 60)).getbbox()
        assert grey.size == (280, 280)
        assert 190 <= max(right - left, bottom - top) <= 210, "a digit fits 20 of 28 pixels"
        level = np.asarray(grey, np.float64)
        mass = [(level.sum(axis) * np.arange(280)).sum() / level.sum() for axis in (0, 1)]
        assert all(abs(m - 139.5) < 3 for m in mass), "its mass is in the middle"
    page.click("#clear")
    assert page.locator("#top li").count() == 0
    assert not page.is_visible("#whole")


def test_on_a_phone_nothing_sticks_out(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    upload(page, png(IMAGES[2]))
    explained(page, first(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.eval_on_selector_all(
        "button:not([hidden])", "all => all.filter(b => b.offsetParent).map(b => b.offsetHeight)"
    )
    assert min(heights) >= 44, "large enough for a finger"
    picture(page, "phone")


def test_dark(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    upload(page, png(IMAGES[2]))
    explained(page, first(page))
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    level = [sum(map(int, c[4:-1].split(","))) for c in (ink, paper)]
    assert level[0] > 500 > 150 > level[1]
    picture(page, "dark")


def test_by_keyboard_alone(page: Any) -> None:
    """Tab reaches what can be used, visibly, and Enter on the file chooser opens it."""
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert {"clear", "file"} <= set(reached)
    page.focus("#file")
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": png(IMAGES[5])})
    assert first(page) == str(LABELS[5])
    assert page.get_attribute("#said", "aria-live") == "polite"


def test_token(browser: Any, start: Any, launch: Launch) -> None:
    server = start("--token", "s3cret")
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#token")
    page.fill("#token", "s3cret")
    page.keyboard.press("Enter")
    page.locator("#title", has_text="alexnet-28").wait_for()
    assert not page.is_visible("#token")
    upload(page, png(IMAGES[6]))
    assert first(page) == str(LABELS[6])
    page.close()
    server.process.terminate()
    server.process.join(30)
