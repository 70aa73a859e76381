"""The dashboard in a real browser: looking, browsing, sending and fetching files, a node that dies meanwhile."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from twinfs.client import sync
from twinfs.common.config import ClientConfig
from twinfs.common.errors import PathNotFound
from twinfs.common.ipld import car
from twinfs.common.ipld.cid import RAW, Cid

from ..support.cluster import Cluster, Server, running, wait_until
from .browser import Complaints, browser, open_page, shot
from .conftest import ask

__all__ = ["browser"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000020000000208020000 00fdd49a73000000144944415478"
    "9c63f8cfc0f09f81e13f03c37f060600264a05fb6d3f7b5d0000000049454e44ae426082".replace(" ", "")
)
HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.\x07exe"

QUICK = ("--heartbeat-interval-s", "0.5", "--stale-after-s", "1.5", "--dead-after-s", "3")
DROP = """([name, length]) => {
  const data = new DataTransfer();
  data.items.add(new File(['x'.repeat(length)], name));
  document.querySelector('.listing').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def drop(page: Page, name: str, length: int) -> None:
    """Drop a file on the listing, once the page shows it."""
    expect(page.locator(".listing")).to_be_visible()
    page.evaluate(DROP, [name, length])


def slow_line(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000},
    )


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    found = Complaints()
    yield found
    assert found.found == []


@pytest.fixture
def page(browser: Browser, complaints: Complaints) -> Iterator[Page]:
    found = open_page(browser, complaints)
    yield found
    found.context.close()


def row(page: Page, name: str) -> object:
    return page.get_by_role("row").filter(has_text=name)


def menu(page: Page, name: str, item: str) -> None:
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    page.get_by_role("menuitem", name=item).click()


def test_the_first_look(cluster: Cluster, page: Page) -> None:
    page.goto(f"{cluster.url}/")
    expect(page.get_by_role("heading", level=1)).to_have_text(
        re.compile("All is well|Needs attention")
    )
    expect(page.get_by_text("3 of 3")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("svg.chart")).to_have_count(4)
    shot(page, "overview")
    page.get_by_role("link", name="Nodes").click()
    expect(page.locator(".rack .node")).to_have_count(3)
    page.locator(".rack .node").first.click()
    expect(page.get_by_label("Chosen node")).to_contain_text("in service")
    shot(page, "nodes")


def test_the_page_comes_with_a_strict_policy(cluster: Cluster) -> None:
    answer = ask(f"{cluster.url}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "connect-src 'self';" in policy
    worker = ask(f"{cluster.url}/bytes.js").headers["content-security-policy"]
    nodes = {f"http://{node.facts['http']}" for node in cluster.datanodes}
    (reach,) = re.findall("connect-src([^;]*);", worker)
    assert set(reach.split()) == nodes
    assert "default-src 'none'" in worker
    for name in (
        "app.js",
        "style.css",
        "vendor/hyparquet/index.js",
        "vendor/hyparquet/LICENSE.txt",
    ):
        found = ask(f"{cluster.url}/static/{name}")
        assert found.status == 200
        again = ask(
            f"{cluster.url}/static/{name}", headers={"If-None-Match": found.headers["etag"]}
        )
        assert again.status == 304
    for name in ("../../__init__.py", "%2e%2e/config.py", "absent.js"):
        assert ask(f"{cluster.url}/static/{name}").status == 404


def test_files_are_browsed_and_changed(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page
) -> None:
    fs.write_bytes(f"{folder}/hello.txt", b"hello, dashboard\n" * 10)
    fs.write_bytes(f"{folder}/picture.png", PNG)
    page.goto(f"{cluster.url}/#/files{folder}")
    page.get_by_text("hello.txt", exact=True).click()
    expect(page.locator(".preview pre")).to_contain_text("hello, dashboard")
    expect(page.locator(".node.holds")).to_have_count(3)
    shot(page, "file")
    page.get_by_role("button", name="Close").click()
    page.get_by_text("picture.png", exact=True).click()
    expect(page.locator(".preview img")).to_have_js_property("naturalWidth", 2)
    page.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="New folder").click()
    page.get_by_label("Name", exact=True).fill("made here")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("link", name="made here")).to_be_visible()

    menu(page, "hello.txt", "Rename or move…")
    page.get_by_label("New path").fill(f"{folder}/made here/renamed.txt")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_role("link", name="made here").click()
    expect(page.get_by_text("renamed.txt", exact=True)).to_be_visible()

    menu(page, "renamed.txt", "Permissions…")
    page.get_by_label("Others: write").check()
    page.get_by_label("Group", exact=True).fill("staff")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("-rw-r--rw-")).to_be_visible()
    status = fs.stat(f"{folder}/made here/renamed.txt")
    assert (status.mode, status.group) == (0o646, "staff")

    menu(page, "renamed.txt", "Move to trash")
    expect(page.get_by_text("renamed.txt", exact=True)).to_have_count(0)
    trashed = f"/user/root/.Trash/Current{folder}/made here"
    page.goto(f"{cluster.url}/#/files{trashed}")
    menu(page, "renamed.txt", "Restore")
    expect(page.get_by_text("renamed.txt", exact=True)).to_have_count(0)
    assert fs.read_bytes(f"{folder}/made here/renamed.txt").startswith(b"hello")


def test_by_keyboard_alone(cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        fs.write_bytes(f"{folder}/{name}", name.encode())
    page.goto(f"{cluster.url}/#/files{folder}")
    expect(page.get_by_text("c.txt", exact=True)).to_be_visible()
    page.get_by_role("grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[aria-selected=true]")).to_contain_text("b.txt")
    page.keyboard.press("Enter")
    expect(page.locator(".preview pre")).to_have_text("b.txt")
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")
    expect(page.get_by_text("b.txt", exact=True)).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("c.")
    expect(page.get_by_role("row")).to_have_count(1)


def test_the_place_of_the_keyboard_outlives_what_changes(cluster: Cluster, page: Page) -> None:
    """The tables are made anew every two seconds; who has come somewhere with Tab stays there."""
    page.goto(f"{cluster.url}/#/nodes")
    name = cluster.datanodes[1].facts["data"]
    for place in (page.locator("table").get_by_role("button", name=name), page.locator(".node")):
        place.first.focus()
        page.evaluate("window.kept = document.activeElement")
        page.wait_for_function("() => !window.kept.isConnected")
        expect(place.first).to_be_focused()
    page.goto(f"{cluster.url}/#/")
    chart = page.get_by_role("img", name="Calls per second")
    chart.focus()
    page.evaluate("window.kept = document.activeElement")
    page.wait_for_function("() => !window.kept.isConnected")
    expect(chart).to_be_focused()


def test_uploads_stream_and_downloads_match(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page, tmp_path: Path
) -> None:
    data = random.Random(5).randbytes(9 * 1024 * 1024 + 17)
    (tmp_path / "large.bin").write_bytes(data)
    (tmp_path / "small.txt").write_bytes(b"small")
    page.goto(f"{cluster.url}/#/files{folder}")
    page.locator("input[type=file]").set_input_files(
        [tmp_path / "large.bin", tmp_path / "small.txt"]
    )
    expect(page.locator(".upload .badge.good")).to_have_count(2)
    assert fs.read_bytes(f"{folder}/large.bin") == data
    assert [s.name for s in fs.list(folder)] == ["large.bin", "small.txt"]
    shot(page, "upload")
    with page.expect_download() as coming:
        menu(page, "large.bin", "Download")
    saved = tmp_path / "saved"
    coming.value.save_as(saved)
    assert saved.read_bytes() == data


def test_a_file_is_dropped_and_an_upload_cancelled(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page
) -> None:
    page.goto(f"{cluster.url}/#/files{folder}")
    expect(page.get_by_text("0 entries")).to_be_visible()
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(['dropped'], 'drop.txt'));
          document.querySelector('.listing').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        }"""
    )
    expect(page.locator(".upload .badge.good")).to_have_count(1)
    assert fs.read_bytes(f"{folder}/drop.txt") == b"dropped"
    # A slow line: there is time to cancel.
    slow_line(page)
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(40e6)], 'never.bin'));
          document.querySelector('.listing').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        }"""
    )
    # Pressed for a while, as by a finger, during which the numbers beside the button change.
    button = page.get_by_role("button", name="Cancel the upload of never.bin").bounding_box()
    assert button is not None
    page.mouse.move(button["x"] + 10, button["y"] + 10)
    page.mouse.down()
    before = page.locator(".upload").last.inner_text()
    expect(page.locator(".upload").last).not_to_have_text(before)
    page.mouse.up()
    expect(page.locator(".upload .badge.warn")).to_have_text("cancelled")
    expect(page.get_by_text("1 entry", exact=True)).to_be_visible()  # nor does the page show it

    def nothing_is_left() -> bool:
        return [status.name for status in fs.list(folder)] == ["drop.txt"]

    wait_until(nothing_is_left, "what was begun is gone")
    with pytest.raises(PathNotFound):
        fs.stat(f"{folder}/never.bin")


def test_a_browser_that_closes_leaves_nothing(
    cluster: Cluster, fs: sync.FileSystem, folder: str, browser: Browser, complaints: Complaints
) -> None:
    """In the middle of an upload: what was begun goes, and its name was never there."""
    page = open_page(browser, complaints)
    page.goto(f"{cluster.url}/#/files{folder}")
    expect(page.get_by_text("0 entries")).to_be_visible()
    slow_line(page)
    drop(page, "never.bin", 30_000_000)

    def begun() -> bool:
        return any(status.name.startswith(".never.bin.") for status in fs.list(folder))

    wait_until(begun, "an upload under way")
    page.context.close()
    wait_until(lambda: list(fs.list(folder)) == [], "that nothing is left")


def test_names_are_text_and_never_run(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page
) -> None:
    fs.write_bytes(f"{folder}/{HOSTILE}", b"<script>document.title='owned'</script>")
    fs.mkdirs(f"{folder}/<b>bold")
    page.on("dialog", lambda dialog: pytest.fail(f"a name was run: {dialog.message}"))
    page.goto(f"{cluster.url}/#/files{folder}")
    expect(page.get_by_text("<b>bold")).to_be_visible()
    entry = page.get_by_role("row").filter(has_text="onerror")
    expect(entry).to_contain_text("U+202E")
    expect(entry).to_contain_text("U+0007")
    entry.click()
    expect(page.locator(".preview pre")).to_contain_text("<script>")
    shot(page, "hostile")
    assert page.locator("main img, main b, main script").count() == 0
    assert page.title() != "owned"


def test_a_parquet_file_shows_its_first_rows(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    numbers = list(range(1_000))
    table = pyarrow.table(
        {
            "number": numbers,
            "root": [math.sqrt(n) for n in numbers],
            "<name>": [f"row {n}" for n in numbers],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    fs.put_file(tmp_path / "t.parquet", f"{folder}/t.parquet")
    page.goto(f"{cluster.url}/#/files{folder}")
    page.get_by_text("t.parquet", exact=True).click()
    expect(page.locator(".preview tbody tr")).to_have_count(50)
    expect(page.locator(".preview thead")).to_contain_text("<name>")
    expect(page.locator(".preview tbody tr").nth(4)).to_contain_text("row 4")
    shot(page, "parquet")


def test_events_appear_as_they_happen(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page
) -> None:
    page.goto(f"{cluster.url}/#/events")
    expect(page.get_by_text("Following.")).to_be_visible()
    page.get_by_label("Below").fill(folder)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Following.")).to_be_visible()
    fs.mkdirs(f"{folder}/seen <i>now</i>"[:-4])
    expect(page.locator("tbody tr").first).to_contain_text("seen <i>now")
    shot(page, "events")


def test_a_long_directory_scrolls(
    cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page
) -> None:
    """Only the rows in sight are in the page."""
    count = 12_000
    for start in range(0, count, 1_000):
        directories = [{"path": f"{folder}/d{n:06}"} for n in range(start, start + 1_000)]
        answer = ask(
            f"{cluster.url}/v1/mkdirs_many",
            body={"directories": directories},
            headers={"X-TwinFS-User": "root"},
        )
        assert answer.status == 200
    page.goto(f"{cluster.url}/#/files{folder}")
    expect(page.get_by_text(f"{count:,} entries", exact=True)).to_be_visible()
    page.get_by_role("grid").focus()
    page.keyboard.press("End")
    expect(page.get_by_text(f"d{count - 1:06}", exact=True)).to_be_visible()
    assert page.get_by_role("row").count() < 100
    page.get_by_label("Filter the names").fill("d004321")
    expect(page.get_by_text("d004321", exact=True)).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("phone", [False, True])
def test_contrast_and_fit(
    cluster: Cluster,
    fs: sync.FileSystem,
    browser: Browser,
    complaints: Complaints,
    dark: bool,
    phone: bool,
) -> None:
    """WCAG AA: text has a contrast of 4.5 to what is behind it; nothing sticks out at the side."""
    page = open_page(browser, complaints, dark=dark, phone=phone)
    for view in ("", "nodes", "files/", "events", "content"):
        page.goto(f"{cluster.url}/#/{view}")
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator("main > *").first).to_be_visible()
        shot(
            page,
            f"{view.strip('/') or 'overview'}{'-dark' if dark else ''}{'-phone' if phone else ''}",
        )
        assert page.evaluate(CONTRAST) == []
        wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, view
    page.context.close()


CONTRAST = r"""() => {
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const rgb = parse(getComputedStyle(at).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0.99) return rgb;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('noscript, .skip, :disabled')) continue;
    const style = getComputedStyle(element);
    const a = light(parse(element.closest('svg') ? style.fill : style.color)), b = light(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  for (const field of document.querySelectorAll('[placeholder]')) {
    if (!field.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(field, '::placeholder').color)), b = light(behind(field));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`placeholder ${field.placeholder}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


def test_a_node_dies_while_somebody_looks(
    tmp_path: Path, browser: Browser, complaints: Complaints
) -> None:
    """Within moments the page says which, and what is done about it; and that it is over, once it is."""
    with running(tmp_path, datanodes=3, namenode_options=("--replication", "2", *QUICK)) as small:
        page = open_page(browser, complaints)
        page.goto(f"{small.url}/")
        expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
        small.datanodes[2].kill()
        expect(page.get_by_text(re.compile(r"DataNode .* is dead"))).to_be_visible()
        expect(page.get_by_text("2 of 3")).to_be_visible()
        shot(page, "dead")
        # Who lets it go for good is not told of it for ever.
        dead = small.datanodes[2].facts["data"]
        headers = {"X-TwinFS-User": "root"}
        for action, count in (("decommission", 0), ("recommission", 1)):
            order = {"action": action, "nodes": [dead]}
            answer = ask(f"{small.url}/v1/administer_nodes", body=order, headers=headers)
            assert answer.status == 200
            expect(page.get_by_text(re.compile(r"DataNode .* is dead"))).to_have_count(count)
        small.datanodes[2].restart()
        expect(page.get_by_text("3 of 3")).to_be_visible(timeout=60_000)
        expect(page.get_by_text(re.compile(r"DataNode .* is dead"))).to_have_count(0)
        # And the NameNode itself: the page says so, and comes back by itself.
        small.namenode.kill()
        expect(page.locator("#connection")).to_have_text("not connected")
        small.namenode.restart()
        expect(page.locator("#connection")).to_have_text("live", timeout=60_000)
        page.context.close()


def test_a_new_datanode_is_used_without_reloading(
    tmp_path: Path, browser: Browser, complaints: Complaints
) -> None:
    """An empty cluster is looked at; a node joins; then another takes its place: the page sends and fetches through each."""
    with running(tmp_path, datanodes=0, namenode_options=("--replication", "1", *QUICK)) as small:
        page = open_page(browser, complaints)
        page.goto(f"{small.url}/")
        expect(page.get_by_text("0 of 0")).to_be_visible()
        expect(page.get_by_text("No DataNode is alive")).to_be_visible()
        shot(page, "empty")
        page.get_by_role("link", name="Nodes").click()
        expect(page.get_by_text("No DataNode has registered yet.")).to_be_visible()
        page.get_by_role("link", name="Files").click()
        expect(page.get_by_text("0 entries")).to_be_visible()
        drop(page, "before.txt", 7)
        expect(page.locator(".upload .badge.bad")).to_have_count(1)
        for number in (1, 2):
            node = small.add_datanode()
            small.wait_live(1)
            page.get_by_role("link", name="Nodes").click()
            expect(page.locator(".rack .node.live")).to_have_count(1)
            page.get_by_role("link", name="Files").click()
            drop(page, f"sent{number}.txt", 7)
            expect(page.locator(".upload .badge.good")).to_have_count(number)
            page.get_by_text(f"sent{number}.txt", exact=True).click()
            expect(page.locator(".preview pre")).to_have_text("xxxxxxx")
            page.keyboard.press("Escape")
            node.kill()
            page.get_by_role("link", name="Nodes").click()
            expect(page.locator(".rack .node.dead")).to_have_count(number)
        shot(page, "sick-nodes")
        page.get_by_role("link", name="Overview").click()
        expect(page.get_by_text(re.compile("2 blocks have no good copy"))).to_be_visible(
            timeout=60_000
        )
        shot(page, "sick")
        assert page.evaluate(CONTRAST) == []
        page.context.close()


def test_a_damaged_copy_is_told(tmp_path: Path, browser: Browser, complaints: Complaints) -> None:
    """The only copy of a file goes bad on its disk: the page says so, and since when."""
    with running(tmp_path, datanodes=1, namenode_options=("--replication", "1", *QUICK)) as small:
        with sync.FileSystem(ClientConfig(namenode=small.url, user="root")) as fs:
            fs.write_bytes("/only", random.Random(3).randbytes(2_000_000))
        (replica,) = (small.folder / "datanode1" / "blocks").rglob("blk_*")
        with replica.open("r+b") as file:
            file.seek(77)
            file.write(b"xxxx")
        headers = {"X-TwinFS-User": "root"}
        order = {"action": "scrub"}
        assert ask(f"{small.url}/v1/order_nodes", body=order, headers=headers).status == 200
        page = open_page(browser, complaints, phone=True)
        page.goto(f"{small.url}/")
        damaged = page.get_by_text("1 damaged copy is on the DataNodes' disks")
        expect(damaged).to_be_visible(timeout=60_000)
        expect(page.get_by_text("1 block has no good copy")).to_be_visible()
        expect(page.locator(".problem").first).to_contain_text(re.compile(r"since \d\d:\d\d:\d\d"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Something is wrong")
        assert page.evaluate(CONTRAST) == []
        shot(page, "damaged-phone")
        page.context.close()


def test_the_menu_fits_a_phone(
    cluster: Cluster,
    fs: sync.FileSystem,
    folder: str,
    browser: Browser,
    complaints: Complaints,
) -> None:
    fs.write_bytes(f"{folder}/f.txt", b"x")
    page = open_page(browser, complaints, phone=True)
    page.goto(f"{cluster.url}/#/files{folder}")
    page.get_by_role("button", name="Actions for f.txt").click()
    box = page.get_by_role("menu").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.evaluate("document.documentElement.clientWidth")
    page.context.close()


def test_a_datanodes_own_page(cluster: Cluster, page: Page) -> None:
    page.goto(f"http://{cluster.datanodes[0].facts['http']}/")
    expect(page.get_by_role("heading", level=1)).to_have_text("All volumes are in service")
    expect(page.get_by_text("answered")).to_be_visible()
    shot(page, "datanode")


def test_a_plain_peers_own_page(tmp_path: Path, page: Page) -> None:
    """It lists whom the peer knows, and what it keeps."""

    def start(name: str, bootstrap: str) -> Server:
        options = ["--dir", str(tmp_path / f"{name}-volume"), "--bootstrap", bootstrap]
        peer = Server(
            tmp_path, name, "twinfs.datanode", [*options, "--port", "0", "--data-port", "0"]
        )
        peers.append(peer)
        peer.start()
        return peer

    peers: list[Server] = []
    try:
        other = start("other", "none")
        peer = start("peer", other.facts["http"])
        url, data = f"http://{peer.facts['http']}", b"kept by the peer"
        cid = Cid.of(RAW, data)
        archive = car.header([cid]) + car.frame(cid, data)
        assert ask(f"{url}/v1/peer/import", body=archive, method="POST").status == 200
        wanted = {"cid": str(cid), "name": "kept <b>", "here": True}
        assert ask(f"{url}/v1/peer/pins", body=wanted).status == 200
        page.goto(url)
        expect(page.get_by_role("heading", level=1)).to_have_text("All volumes are in service")
        expect(page.locator(".brand")).to_have_text("TwinFS peer")
        expect(page.get_by_text("None: this is a plain peer.")).to_be_visible()
        section = page.locator("section")
        known = section.filter(has=page.get_by_role("heading", name="Peers", exact=True))
        expect(known.get_by_role("row").filter(has_text=other.facts["http"])).to_have_count(1)
        pins = section.filter(has=page.get_by_role("heading", name="Pins", exact=True))
        expect(pins).to_contain_text(str(cid))
        expect(pins).to_contain_text("kept <b>")
        assert page.evaluate(CONTRAST) == []
        shot(page, "peer")
    finally:
        assert [peer.stop() for peer in peers] == [0] * len(peers)


def test_the_content_side(cluster: Cluster, fs: sync.FileSystem, folder: str, page: Page) -> None:
    """A path's CID, its DAG, who provides it; a pin is made and removed."""
    fs.write_bytes(f"{folder}/three.bin", random.Random(11).randbytes(3 * 1024 * 1024))
    page.goto(f"{cluster.url}/#/content")
    page.get_by_label("CID or path").fill(f"{folder}/three.bin")
    page.get_by_role("button", name="Look").click()
    expect(page.locator(".dag")).to_contain_text("3 links")
    expect(page.locator(".dag li li")).to_have_count(3)
    expect(page.locator(".node.holds")).to_have_count(3)
    shot(page, "dag")
    cid = page.locator("main p.mono").first.inner_text()
    page.get_by_role("button", name="Pin…").click()
    page.get_by_label("Name", exact=True).fill("kept <b>")
    page.get_by_role("button", name="Pin", exact=True).click()
    pins = page.locator("section", has=page.get_by_role("heading", name="Pins"))
    expect(pins).to_contain_text(cid)
    expect(pins).to_contain_text("kept <b>")
    pins.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(pins).to_contain_text("Nothing is pinned")
    # At its own address in a new page, which has not heard of any node when it begins.
    page.goto(f"http://{cluster.datanodes[0].facts['http']}/")
    page.goto(f"{cluster.url}/#/content/{cid}")
    expect(page.locator(".dag li li")).to_have_count(3)
    expect(page.get_by_role("button", name="Copy a gateway link")).to_be_visible()
    page.goto(f"{cluster.url}/#/content")
    for bad in ("nonsense", "bafynonsense0189", "Qm00000000"):
        page.goto(f"{cluster.url}/#/content/{bad}")
        expect(page.get_by_text(re.compile("This is no CID"))).to_be_visible()
