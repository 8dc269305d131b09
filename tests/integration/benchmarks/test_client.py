"""The client on real sockets. Times come from a clock the fake engine sets, so they are exact."""

import asyncio
import datetime as dt
import errno
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.figures.metrics import e2el, measure, tpot, ttft
from benchmarks.generator.client import Client
from benchmarks.generator.driving import RealTime, drive
from benchmarks.generator.loads import ClosedLoop, Limit
from benchmarks.generator.target import Api, Target
from benchmarks.generator.workloads import Fixed, Workload

WORKLOAD = Workload(Fixed(4), Fixed(3))


class SetClock:
    """A clock that stands still until it is set, and says when it was read."""

    def __init__(self) -> None:
        self.now = 100.0
        self.read = asyncio.Event()

    def __call__(self) -> float:
        self.read.set()
        return self.now

    async def at(self, moment: float, write: Callable[[], None]) -> None:
        """Write at that moment, and wait until the client has taken what was written."""
        self.now = moment
        self.read.clear()
        write()
        await self.read.wait()


async def test_reported_latencies_are_the_injected_ones(fake_engine: Any, stream_head: bytes) -> None:
    clock = SetClock()

    async def answer(engine: Any) -> None:
        await clock.at(100.5, lambda: engine.send(stream_head))
        await clock.at(101.0, engine.token)
        await clock.at(101.25, engine.token)
        await clock.at(103.25, engine.token)
        await clock.at(109.0, engine.end)

    async with fake_engine(answer) as server, Client(Target(server.url, "m"), clock=clock) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert sample.error is None
    assert ttft(sample) == 1.0
    assert sample.gaps == (0.25, 2.0)
    assert e2el(sample) == 3.25
    assert tpot(sample) == (3.25 - 1.0) / 2
    assert (sample.prompt_tokens, sample.output_tokens, sample.counted) == (5, 3, True)


async def test_latency_counts_from_when_the_request_was_due(fake_engine: Any, obedient_answer: Any) -> None:
    clock = SetClock()
    async with fake_engine(obedient_answer) as server, Client(Target(server.url, "m"), clock=clock) as client:
        sample = await client.send(WORKLOAD.request(0), due_at=97.5)
    assert ttft(sample) == 2.5
    assert sample.sent_at - sample.started_at == 2.5


async def test_the_request_is_what_was_planned(fake_engine: Any, obedient_answer: Any) -> None:
    async with fake_engine(obedient_answer) as server:
        async with Client(Target(server.url, "the-model", api_key="sk-k")) as client:
            await client.send(WORKLOAD.request(7))
        async with Client(Target(server.url, "m", Api.COMPLETIONS, ignore_eos=False)) as client:
            await client.send(WORKLOAD.request(7))
        chat, plain = server.requests
    assert chat.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert "Authorization: Bearer sk-k\r\n" in chat.head
    prompt = WORKLOAD.request(7).prompt
    assert chat.body == {
        "model": "the-model",
        "max_tokens": 3,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
        "ignore_eos": True,
    }
    assert plain.head.startswith("POST /v1/completions HTTP/1.1\r\n")
    assert plain.body["prompt"] == prompt
    assert "Authorization" not in plain.head
    assert "ignore_eos" not in plain.body


async def test_connections_are_kept(fake_engine: Any, obedient_answer: Any) -> None:
    async with fake_engine(obedient_answer) as server, Client(Target(server.url, "m")) as client:
        for index in range(5):
            assert (await client.send(WORKLOAD.request(index))).error is None
        assert server.connections == 1


async def test_a_kept_connection_that_has_died_is_replaced_unseen(
    fake_engine: Any, stream_head: bytes, obedient_answer: Any
) -> None:
    async def dies_on_reuse(engine: Any) -> None:
        if len(server.requests) == 2:
            engine.close()
        else:
            await obedient_answer(engine)

    async with fake_engine(dies_on_reuse) as server, Client(Target(server.url, "m")) as client:
        first, second = [await client.send(WORKLOAD.request(index)) for index in (0, 1)]
        assert (first.error, second.error) == (None, None)
        assert [engine.connection for engine in server.requests] == [1, 1, 2]


async def test_a_fresh_connection_that_dies_is_a_failure_and_not_tried_again(fake_engine: Any) -> None:
    async def dies(engine: Any) -> None:
        engine.close()

    async with fake_engine(dies) as server, Client(Target(server.url, "m")) as client:
        assert (await client.send(WORKLOAD.request(0))).error == "truncated"
        assert server.connections == 1


async def test_an_answer_that_breaks_off_is_not_tried_again(
    fake_engine: Any, stream_head: bytes, obedient_answer: Any
) -> None:
    async def breaks_off(engine: Any) -> None:
        if len(server.requests) == 1:
            await obedient_answer(engine)
            return
        engine.send(stream_head)
        engine.token()
        engine.close()

    async with fake_engine(breaks_off) as server, Client(Target(server.url, "m")) as client:
        samples = [await client.send(WORKLOAD.request(index)) for index in (0, 1)]
        assert [sample.error for sample in samples] == [None, "truncated"]
        assert len(server.requests) == 2


async def test_without_usage_chunks_are_counted_and_it_is_said(fake_engine: Any, stream_head: bytes) -> None:
    async def answer(engine: Any) -> None:
        engine.send(stream_head)
        engine.token()
        engine.token()
        engine.end(usage=False)

    async with fake_engine(answer) as server, Client(Target(server.url, "m")) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert (sample.output_tokens, sample.counted) == (2, False)


async def test_the_key_is_cut_out_of_what_servers_say(fake_engine: Any) -> None:
    async def answer(engine: Any) -> None:
        key = engine.head.partition("Bearer ")[2].partition("\r\n")[0]
        engine.whole("401 Unauthorized", {"error": {"message": f"wrong key {key}", "code": key}})

    secret = "sk-porten-secret"
    async with fake_engine(answer) as server, Client(Target(server.url, "m", api_key=secret)) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert sample.error == "http_401:[api key]"
    assert sample.detail == "status 401: wrong key [api key]"


async def test_no_half_of_a_key_is_left_where_long_words_are_cut(fake_engine: Any) -> None:
    secret = "sk-porten-secret"

    async def answer(engine: Any) -> None:
        engine.whole("401 Unauthorized", {"error": {"message": "x" * 290 + f" {secret} " + "y" * 300}})

    async with fake_engine(answer) as server, Client(Target(server.url, "m", api_key=secret)) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert len(sample.detail) <= 320
    assert secret[:4] not in sample.detail


async def test_a_generator_out_of_files_is_not_taken_for_a_failing_endpoint(
    fake_engine: Any, obedient_answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with fake_engine(obedient_answer) as server, Client(Target(server.url, "m")) as client:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", none_left)
        sample = await client.send(WORKLOAD.request(0))
    assert sample.error == "no_files"
    assert "ulimit" in sample.detail


async def test_a_request_that_takes_too_long_is_given_up_and_the_server_sees_it(fake_engine: Any) -> None:
    async def silent(engine: Any) -> None:
        await engine.reader.read()

    # Long enough for a busy machine to get the request to the server, which else would never see anybody go.
    async with fake_engine(silent) as server, Client(Target(server.url, "m", timeout_s=0.5)) as client:
        assert (await client.send(WORKLOAD.request(0))).error == "timeout"
        await server.gone.wait()


async def test_a_stopped_run_cuts_connections_and_keeps_what_is_complete(
    fake_engine: Any, obedient_answer: Any
) -> None:
    stop = asyncio.Event()

    async def third_hangs(engine: Any) -> None:
        if len(server.requests) < 3:
            await obedient_answer(engine)
            return
        stop.set()
        await engine.reader.read()

    async with fake_engine(third_hangs) as server, Client(Target(server.url, "m")) as client:
        run = await drive(
            client, WORKLOAD.request, ClosedLoop(1), Limit(requests=9), timeline=RealTime(), stop=stop
        )
        await server.gone.wait()
    assert (len(run.samples), run.unfinished, run.interrupted) == (2, 1, True)
    assert measure(run).completed == 2


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_many_at_once_are_kept_apart(fake_engine: Any, obedient_answer: Any, concurrency: int) -> None:
    async with fake_engine(obedient_answer) as server, Client(Target(server.url, "m")) as client:
        run = await drive(
            client,
            WORKLOAD.request,
            ClosedLoop(concurrency),
            Limit(requests=64),
            timeline=RealTime(),
            stop=asyncio.Event(),
        )
        metrics = measure(run)
        assert (metrics.completed, metrics.output_tokens) == (64, 192)
        assert server.connections == concurrency
        prompts = {engine.body["messages"][0]["content"] for engine in server.requests}
        assert len(prompts) == 64


async def test_nothing_listening() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with Client(Target(f"http://127.0.0.1:{port}", "m")) as client:
        sample = await client.send(WORKLOAD.request(0))
    assert sample.error == "connection_refused"
    assert f"127.0.0.1:{port}" in sample.detail


async def test_tls_is_checked(fake_engine: Any, obedient_answer: Any, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with fake_engine(obedient_answer, tls=context) as server:
        async with Client(Target(server.url, "m", ca_file=certificate)) as client:
            assert (await client.send(WORKLOAD.request(0))).error is None
        async with Client(Target(server.url, "m")) as client:
            assert (await client.send(WORKLOAD.request(0))).error == "tls"


def self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
