"""The documentation as a site: it builds without a warning, and works in Chromium with no other origin or server."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from processes import run

ROOT = Path(__file__).parents[1]
BUILD = "import sys\nfrom sphinx.cmd.build import main\nsys.exit(main(sys.argv[1:]))"
# What of a page the tests look at: links, names of places, and how far it reaches to the right.
LOOK = """() => ({
    links: [...document.querySelectorAll("a[href]")].map(link => link.href),
    places: [...document.querySelectorAll("[id]")].map(place => place.id),
    width: document.documentElement.scrollWidth,
})"""
# The least contrast of a text with what is behind it, by WCAG 2, and the text.
CONTRAST = """() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([red, green, blue]) => [red, green, blue].map(value => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    }).reduce((sum, part, number) => sum + part * [0.2126, 0.7152, 0.0722][number], 0);
    const behind = element => {
        for (let one = element; one; one = one.parentElement) {
            const found = channels(getComputedStyle(one).backgroundColor);
            if (found.length < 4 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    let least = [Infinity, ""];
    const texts = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
        if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const both = [channels(getComputedStyle(element).color), behind(element)].map(light).sort((a, b) => b - a);
        const ratio = (both[0] + 0.05) / (both[1] + 0.05);
        if (ratio < least[0]) least = [ratio, text.slice(0, 60), element.className];
    }
    return least;
}"""


@pytest.fixture(scope="session")
def site(once):
    """The site, built once for all parallel processes with warnings as errors."""
    if not os.environ.get("VITHUB_NEEDS_BROWSER"):  # with it, as in CI, a missing library fails the tests
        pytest.importorskip("sphinx", reason="the site is built with vithub[docs]")

    def make(folder):
        arguments = ["-q", "-W", "--keep-going", "-d", f"{folder}-doctrees", str(ROOT / "docs"), str(folder)]
        built = run(BUILD, arguments)
        assert built.returncode == 0, built.stderr
        assert not built.stderr

    return once("site", make)


def pages_of(site):
    return sorted(file for file in site.rglob("*.html"))


def test_every_document_is_a_page(site):
    documents = {file.relative_to(ROOT / "docs").with_suffix("") for file in (ROOT / "docs").rglob("*.md")}
    pages = {file.relative_to(site).with_suffix("") for file in pages_of(site)}
    assert documents <= pages


def test_the_reference_has_every_public_name_and_every_command(site):
    from vithub.scripts.command_line import app

    import vithub

    python = (site / "reference/python.html").read_text("utf-8")
    assert all(f'id="vithub.{name}"' in python for name in vithub.__all__)
    commands = (site / "reference/commands.html").read_text("utf-8")
    names = {command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert names == set(re.findall(r"<h2>vithub ([\w-]+)<", commands))
    assert "--image-size" in commands
    assert "training.weight_decay" in commands


def test_no_page_is_wider_than_a_telephone_asks_elsewhere_or_has_a_broken_link(site, browser):
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page, asked, found = context.new_page(), [], {}
    context.on("request", lambda request: asked.append(request.url))
    for file in pages_of(site):
        page.goto(file.as_uri(), wait_until="load")
        found[file.as_uri()] = page.evaluate(LOOK)
    context.close()
    assert {url: look["width"] for url, look in found.items() if look["width"] > 360} == {}
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:"))] == []
    assert all(look["links"] for look in found.values())
    broken = set()
    for url, look in found.items():
        for link in look["links"]:
            target, _, place = link.partition("#")
            if not target.startswith("file:"):
                continue
            if target in found:
                if place and unquote(place) not in found[target]["places"]:
                    broken.add((url, link))
            elif not Path(unquote(urlsplit(target).path)).is_file():
                broken.add((url, link))
    assert broken == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable_in_both_colour_schemes(site, browser, scheme):
    context = browser.new_context(color_scheme=scheme)
    page, backgrounds = context.new_page(), set()
    for name in ("index", "training", "tour/06_attention", "reference/python", "howto/few_photos"):
        page.goto((site / f"{name}.html").as_uri())
        ratio, *where = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (name, where)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    context.close()
    red, green, blue = map(int, re.findall(r"\d+", backgrounds.pop())[:3])
    assert (red + green + blue > 3 * 128) == (scheme == "light")


def test_the_search_finds_a_page_without_a_server(site, browser):
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + "?q=collapse")
    page.locator("#search-results a", has_text="Learning from images without labels").first.wait_for()
    page.close()
