"""The Hub hands out its own program, signed, under one name."""

import asyncio
import hashlib
import io
import re
import zipfile

import pytest

from tunnel.handout import read_handout


async def test_script_word_and_wheel_agree(bench, http):
    script, word = await asyncio.gather(http.get("/install.sh"), http.get("/install/program"))
    handout = read_handout(word.text, bench.hub.key.public_key())
    assert handout.hub_id == bench.hub.hub_id
    assert re.search(r"\nPROGRAM_FILE=(\S+)\n", script.text)[1] == handout.file
    assert re.search(r"\nPROGRAM_SHA256=(\S+)\n", script.text)[1] == handout.sha256
    wheel = await http.get(f"/install/{handout.file}")
    assert wheel.status_code == 200
    assert (len(wheel.content), hashlib.sha256(wheel.content).hexdigest()) == (handout.size, handout.sha256)
    assert "runtime/cli/app.py" in zipfile.ZipFile(io.BytesIO(wheel.content)).namelist()


@pytest.mark.parametrize(
    "name",
    ["porten-0.0.1-py3-none-any.whl", "hub.key", "..%2Fhub.key", "..%2f..%2fetc%2fpasswd", "%00", "x" * 5000],
)
async def test_there_is_nothing_else(http, name):
    answer = await http.get(f"/install/{name}")
    assert answer.status_code == 404
    assert "html" not in answer.headers["content-type"]
