"""The page for everybody: names for screen readers, contrast, focus, keys alone, light and dark, no foreign request."""

from __future__ import annotations

UNNAMED = """
() => {
  const shown = (element) => element.getClientRects().length > 0;
  const name = (element) => {
    const labelled = element.getAttribute("aria-labelledby");
    const text = labelled ? document.getElementById(labelled)?.textContent : element.getAttribute("aria-label");
    const label = element.labels?.[0]?.textContent;
    return (text ?? label ?? (/^(BUTTON|A|OPTION)$/.test(element.tagName) ? element.textContent : "") ?? "").trim();
  };
  const wanted = "button, a, input, select, progress, meter, output, dialog[open], [role], main section";
  return [...document.querySelectorAll(wanted)]
    .filter((element) => shown(element) && !element.matches("[role=status], [role=group]:has(> *)") && !name(element))
    .filter((element) => !element.matches(".panel section, .dialog-body section, meter + *"))
    .map((element) => element.outerHTML.slice(0, 120));
}
"""

FAINT = """
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((part, k) => part * a + below[k] * (1 - a));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
    if (element.closest("script, style, .unseen, .jump, option")) continue;
    const below = ground(element);
    const above = over(parse(getComputedStyle(element).color), below);
    const [high, low] = [light(above), light(below)].sort((one, other) => other - one);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${walker.currentNode.textContent.trim()} ${ratio.toFixed(2)}`);
  }
  return found;
}
"""

LANES_FAINT = """
() => {
  const style = getComputedStyle(document.documentElement);
  const parts = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi);
  const hex = (name) => parts(name).map((part) => parseInt(part, 16) / 255);
  const light = (name) => {
    const [r, g, b] = hex(name).map((share) => (share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const stages = [0, 1, 2, 3, 4, 5].map((stage) => `--stage-${stage}`);
  const fills = ["--plus", "--zero", "--minus", "--lane-strong", ...stages];
  return fills.map((fill) => [fill, ratio(fill, "--on-strong")]).filter(([, found]) => found < 4.5);
}
"""


def checked(page) -> None:
    page.settles(UNNAMED, [])
    for scheme in ("dark", "light"):
        page.page.emulate_media(color_scheme=scheme)
        page.settles(FAINT, [])
        page.settles(LANES_FAINT, [])


def test_names_and_contrast_of_every_view(visit):
    page = visit("person0", "episode:16", reduced_motion="reduce")
    page.page.wait_for_selector("[data-lane='value']")
    page.go(4).press("3", "Enter")
    checked(page)
    for key, dialog in (("?", "#help"), ("g", "#job"), ("d", "#job"), ("n", "#skip")):
        page.press(key)
        page.page.wait_for_selector(f"{dialog}[open]")
        checked(page)
        page.press("Escape")
        page.page.wait_for_selector(dialog, state="hidden")
    page.go(8).press("1", "b", "End")
    page.shows(11)
    page.press("0", "s", "Enter").saved()
    page.page.wait_for_selector("[data-lane='value'] canvas")
    checked(page)
    page.press("m")
    page.page.wait_for_selector("#clip-b[data-frame]")
    page.press("a")
    checked(page)
    page.page.wait_for_selector("#pair-place[max='9']")


def test_dialogs_keep_the_focus_and_give_it_back(visit):
    page = visit("person1", "episode:18")
    page.page.focus("#scrubber")
    page.press("?")
    page.page.wait_for_selector("#help[open]")
    for _ in range(4):
        page.press("Tab")
        inside = page.page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('#help') !== null"
        )
        assert inside
    page.press("3")  # keys of the page rest while the sheet is open
    page.press("Escape")
    page.page.wait_for_selector("#help", state="hidden")
    page.page.wait_for_function("document.activeElement.id === 'scrubber'")
    page.tells(".todo li:first-child", "○")
    page.tells(".todo", "0 / 12")
    page.press("n")  # a key right after a dialog is not lost
    page.page.wait_for_selector("#skip[open]")
    page.page.evaluate(
        "document.querySelector('#skip').close(); document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true, cancelable: true }))"
    )
    page.shows(1)


def test_all_buttons_are_reached_by_tab_show_the_focus_and_name_their_key(visit):
    page = visit("person2", "episode:19")
    count = page.page.locator("button:visible").count()
    reached = set()
    for _ in range(count + 10):
        page.press("Tab")
        command, outline = page.page.evaluate(
            "[document.activeElement.dataset.command ?? '', getComputedStyle(document.activeElement).outlineStyle]"
        )
        if command:
            reached.add(command)
            assert outline == "solid"
    wanted = page.page.evaluate(
        "[...document.querySelectorAll('button[data-command]')].filter((b) => b.getClientRects().length)"
        ".map((b) => b.dataset.command)"
    )
    assert set(wanted) <= reached
    untold = page.page.evaluate(
        "[...document.querySelectorAll('#work button[data-command]')].filter((b) => b.getClientRects().length)"
        ".filter((b) => !/\\(.+\\)$/.test(b.title)).map((b) => b.dataset.command)"
    )
    assert untold == []


def test_nothing_is_cut_off(visit):
    page = visit("person4", "episode:21")
    page.page.wait_for_selector("[data-lane='value']")
    for width, height in ((1280, 720), (1280, 800), (1920, 1080)):
        page.page.set_viewport_size({"width": width, "height": height})
        page.settles(
            "[...document.querySelectorAll('button, canvas, #scrubber')].filter((e) => e.getClientRects().length)"
            ".filter((e) => { const box = e.getBoundingClientRect();"
            " return box.right > innerWidth || box.left < 0 || box.bottom > innerHeight; })"
            ".map((e) => e.outerHTML.slice(0, 80))",
            [],
        )
        page.settles("document.documentElement.scrollWidth <= innerWidth", True)
        # Undo and redo are in sight, too.
        page.settles("(({ scrollHeight, clientHeight }) => scrollHeight - clientHeight)(window.panel)", 0)
        box = page.page.locator("#scrubber").bounding_box()
        for place in (1, box["width"] - 1):
            page.page.mouse.move(box["x"] + place, box["y"] + 30)
            tip = page.page.locator(".tip").bounding_box()
            assert tip["x"] >= box["x"] - 1
            assert tip["x"] + tip["width"] <= box["x"] + box["width"] + 1
