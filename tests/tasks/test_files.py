"""Files are found where they are, and missing ones say how to get them."""

import http.server
import threading

import pytest

from levelhead.tasks import files
from levelhead.tasks.files import download, find, locate


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "uci" / "yacht"
    place.mkdir(parents=True)
    (place / "data.txt").write_text("1 2 3")
    return place


def test_places_in_their_order(tmp_path, folder):
    assert find("uci/yacht", ["data.txt"], data_dir=tmp_path) == folder
    assert find("uci/yacht", ["data.txt"], data_dir=folder) == folder
    assert find("uci/yacht", ["data.txt"], data_dir=folder, itself=False) is None
    assert find("uci/yacht", ["data.txt"], data_dir=None, system=[folder]) == folder
    assert find("uci/yacht", ["data.txt", "more.txt"], data_dir=tmp_path) is None


def test_missing_files_say_what_to_do(tmp_path, folder):
    assert locate("uci/yacht", ["data.txt"], data_dir=tmp_path, how="") == folder
    with pytest.raises(
        FileNotFoundError, match=r"no data_dir was given: wants data.txt in a folder uci/yacht/.*Ask Tom"
    ):
        locate("uci/yacht", ["data.txt"], data_dir=None, how="Ask Tom.")
    with pytest.raises(FileNotFoundError, match="neither"):
        locate("uci/energy", ["data.txt"], data_dir=tmp_path, how="")


@pytest.fixture
def url(tmp_path):
    """A server of one file on this machine."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.txt").write_text("hello")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_downloads_are_checked_and_kept(tmp_path, url, monkeypatch):
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    good = {"a.txt": "md5:5d41402abc4b2a76b9719d911017c592"}
    place = download("letters", url, good)
    assert place == tmp_path / "cache" / "letters"
    assert (place / "a.txt").read_text() == "hello"
    assert download("letters", "http://127.0.0.1:1/", good) == place  # nothing is fetched again
    with pytest.raises(ValueError, match="hash"):
        download("others", url, {"a.txt": "md5:" + "0" * 32})
