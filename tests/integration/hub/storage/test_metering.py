"""No record whose write returned is ever lost or counted twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict

import msgspec
import pytest

from hub.errors import SpoolUnavailable, StorageUnavailable
from hub.metering import FLUSH_AT_RECORDS, Meter
from hub.storage.records import UsageRecord

NOW = 1_700_000_000.0


def record(request_id):
    return UsageRecord(
        request_id, "key_1", "org_1", "node_1", "eu-de", "tiny", 10, 0, 3, 12.5, 80.0, "ok", NOW
    )


async def stored(storage):
    return sorted(each.request_id for each in await storage.usage.list(limit=1_000_000))


async def until(condition):
    while not await condition():
        await asyncio.sleep(0)


def segments(spool):
    return sorted(path.name for path in spool.iterdir() if path.suffix != ".lock")


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "usage"


async def test_records_reach_storage_by_themselves_and_leave_nothing_behind(storage, spool):
    async with Meter(storage, spool) as meter:
        for number in range(3):
            meter.record(record(f"req_{number}"))

        async def all_there():
            return await stored(storage) == ["req_0", "req_1", "req_2"]

        await until(all_there)
    assert segments(spool) == []


async def test_an_outage_is_said_once_and_so_is_its_end(storage, spool, monkeypatch, caplog):
    caplog.set_level("INFO", "hub.spool")
    monkeypatch.setattr("hub.spool.RETRY_S", 0.01)
    tries, often = [], asyncio.Event()

    async def away(records):
        tries.append(len(records))
        if len(tries) == 3:
            often.set()
        raise StorageUnavailable("away")

    async def all_there():
        return meter.waiting == 0

    async with Meter(storage, spool) as meter:
        with monkeypatch.context() as broken:
            broken.setattr(storage.usage, "add", away)
            meter.record(record("req_1"))
            assert meter.waiting == 1
            await often.wait()
            meter.record(record("req_2"))
            assert meter.waiting == 2
        await until(all_there)
    assert await stored(storage) == ["req_1", "req_2"]
    said = [each.event for each in caplog.records if each.name == "hub.spool"]
    assert said == ["usage.deferred", "usage.caught_up"]


async def test_a_full_segment_is_stored_at_once_and_stopping_stores_the_rest(storage, spool):
    meter = Meter(storage, spool)
    await meter.start()
    for number in range(FLUSH_AT_RECORDS + 7):
        meter.record(record(f"req_{number:05d}"))
    await meter.stop()
    assert len(await stored(storage)) == FLUSH_AT_RECORDS + 7


async def test_a_record_is_on_disk_when_the_call_returns(storage, spool):
    async with Meter(storage, spool) as meter:
        meter.record(record("req_1"))
        [name] = segments(spool)
        assert json.loads((spool / name).read_bytes())["request_id"] == "req_1"


async def test_nothing_but_counts_and_names_is_written(storage, spool):
    async with Meter(storage, spool) as meter:
        meter.record(record("req_1"))
        [name] = segments(spool)
        written = json.loads((spool / name).read_bytes())
    assert set(written) == set(UsageRecord.__dataclass_fields__)


FLOOD = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from hub.metering import Meter
    from hub.storage.records import UsageRecord
    from hub.storage.repositories import Storage

    async def main(url, spool):
        async with await Storage.open(url) as storage, Meter(storage, Path(spool)) as meter:
            for number in range(10**9):
                name = f"req_{number:07d}"
                meter.record(UsageRecord(
                    name, "key_1", "org_1", "node_1", None, "tiny", 1, 0, 1, None, 1.0, "ok", 1.7e9))
                sys.stdout.write(name + "\\n")  # said only after the write returned, as an answer would be
                sys.stdout.flush()
                await asyncio.sleep(0)

    asyncio.run(main(*sys.argv[1:]))
""")


@pytest.mark.parametrize("answers", [1, 700, 3_000])
def test_sigkill_in_a_flood_loses_nothing_and_doubles_nothing(answers, tmp_path, database_url, spool):
    """The process dies at once: the number of answers seen before decides in the middle of what."""
    asyncio.run(_migrated(database_url))
    child = subprocess.Popen(
        [sys.executable, "-c", FLOOD, database_url, str(spool)], stdout=subprocess.PIPE, text=True
    )
    seen = [child.stdout.readline().strip() for _ in range(answers)]
    os.kill(child.pid, signal.SIGKILL)
    seen += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    answered = {name for name in seen if name}
    kept = asyncio.run(_replayed(database_url, spool))
    assert len(answered) >= answers
    assert answered <= set(kept)
    assert len(kept) == len(set(kept))
    assert len(kept) <= len(answered) + 1, (
        "at most the one whose write returned and whose answer did not leave"
    )
    assert segments(spool) == []


async def _migrated(database_url):
    from hub.storage.repositories import Storage

    async with await Storage.open(database_url) as storage:
        await storage.migrate()


async def _replayed(database_url, spool):
    from hub.storage.repositories import Storage

    async with await Storage.open(database_url) as storage:
        async with Meter(storage, spool):
            pass
        return await stored(storage)


async def test_a_file_that_was_stored_but_not_deleted_counts_once(storage, spool):
    spool.mkdir()
    line = msgspec.json.encode(record("req_1")) + b"\n"
    (spool / "old-0000000001.jsonl").write_bytes(line)
    await storage.usage.add([record("req_1")])
    async with Meter(storage, spool):
        assert await stored(storage) == ["req_1"]
    assert segments(spool) == []


async def test_a_torn_last_line_is_no_record(storage, spool):
    spool.mkdir()
    line = msgspec.json.encode(record("req_1")) + b"\n"
    (spool / "old-0000000001.jsonl").write_bytes(line + line[: len(line) // 2])
    async with Meter(storage, spool):
        assert await stored(storage) == ["req_1"]
    assert segments(spool) == []


async def test_a_damaged_line_is_kept_for_people_and_the_others_count(storage, spool, caplog):
    spool.mkdir()
    lines = [msgspec.json.encode(record(f"req_{number}")) + b"\n" for number in range(2)]
    (spool / "old-0000000001.jsonl").write_bytes(lines[0] + b"\x00\x00 what is this\n" + lines[1])
    async with Meter(storage, spool):
        assert await stored(storage) == ["req_0", "req_1"]
    assert segments(spool) == ["old-0000000001.damaged"]
    assert [entry.event for entry in caplog.records if entry.name == "hub.spool"] == ["usage.damaged"]


async def test_while_storage_fails_records_wait_and_nothing_is_lost(storage, spool, monkeypatch, caplog):
    add, fails = storage.usage.add, True

    async def failing(records):
        if fails:
            raise StorageUnavailable("disk I/O error")
        await add(records)

    monkeypatch.setattr(storage.usage, "add", failing)
    async with Meter(storage, spool) as meter:
        for number in range(5):
            meter.record(record(f"req_{number}"))
            with pytest.raises(StorageUnavailable):
                await meter.flush()
        assert len(segments(spool)) == 5
        fails = False
        await meter.flush()
        assert len(await stored(storage)) == 5
    assert segments(spool) == []


async def test_what_storage_does_not_take_at_the_end_is_there_at_the_next_start(storage, spool, monkeypatch):
    async def failing(records):
        raise StorageUnavailable("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(storage.usage, "add", failing)
        async with Meter(storage, spool) as meter:
            meter.record(record("req_1"))
    assert len(segments(spool)) == 1
    async with Meter(storage, spool):
        assert await stored(storage) == ["req_1"]


async def test_processes_share_a_spool_and_leave_each_others_files_alone(storage, spool, monkeypatch):
    async with Meter(storage, spool) as old:
        with monkeypatch.context() as broken:
            broken.setattr(old, "_try_flush", lambda: asyncio.sleep(0, 60.0))
            old.record(record("req_1"))
            async with Meter(storage, spool) as new:
                new.record(record("req_2"))
                await new.flush()
                assert await stored(storage) == ["req_2"]
            assert len(segments(spool)) == 1
    assert await stored(storage) == ["req_1", "req_2"]
    assert list(spool.iterdir()) == []


async def test_what_a_dead_process_left_is_adopted_with_its_lock(storage, spool):
    dead = Meter(storage, spool)
    dead._enter_directory()
    dead.record(record("req_1"))
    os.close(dead._lock)
    async with Meter(storage, spool):
        assert await stored(storage) == ["req_1"]
    assert list(spool.iterdir()) == []


async def test_a_full_disk_is_said_and_the_torn_line_harms_no_other(storage, spool, monkeypatch):
    async with Meter(storage, spool) as meter:
        meter.record(record("req_1"))
        write = os.write
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:20]))
            with pytest.raises(SpoolUnavailable):
                meter.record(record("req_2"))
        meter.record(record("req_3"))
        await meter.flush()
        assert await stored(storage) == ["req_1", "req_3"]


@pytest.mark.parametrize(
    "poison",
    [
        b'{"request_id":"\xff"}',
        b"[]",
        msgspec.json.encode(asdict(record("req_x")) | {"created_at": 1e300}),
        msgspec.json.encode(asdict(record("req_x")) | {"prompt_tokens": 2**63}),
    ],
)
async def test_what_cannot_be_stored_is_set_aside_and_holds_up_nothing(storage, spool, poison):
    spool.mkdir()
    good = [msgspec.json.encode(record(f"req_{number}")) for number in range(3)]
    (spool / "old-0000000001.jsonl").write_bytes(b"\n".join([good[0], poison, *good[1:]]) + b"\n")
    async with Meter(storage, spool) as meter:
        assert await stored(storage) == ["req_0", "req_1", "req_2"]
        meter.record(record("req_3"))
        await meter.flush()
        assert await stored(storage) == ["req_0", "req_1", "req_2", "req_3"]
    assert segments(spool) == ["old-0000000001.damaged"]


async def test_a_directory_that_cannot_be_made_is_our_own_error(storage, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnavailable):
        await Meter(storage, tmp_path / "file" / "usage").start()
