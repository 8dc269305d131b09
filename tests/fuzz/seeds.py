"""Writes the first inputs of the corpus from SPEC.md's test vectors: `python tests/fuzz/seeds.py`."""

import re
from pathlib import Path

from targets import KINDS, RECORD, TARGETS

from tunnel.frames import HEADER, HEADER_BYTES, decode

HERE = Path(__file__).parent
SPEC = (HERE.parents[1] / "tunnel" / "SPEC.md").read_text(encoding="utf-8")
HEAR = 0x02  # the frames gathered so far are one message
ACT = 0x80
OPEN, SEND, READ, RESET, DISCARD, WAIT, FLUSH = range(7)


def vectors() -> dict[str, bytes]:
    found = re.findall(r"^([A-Z+]+):\n((?:    [0-9a-f]+\n)+)", SPEC, re.MULTILINE)
    return {name.lower().replace("+", "-"): bytes.fromhex("".join(lines.split())) for name, lines in found}


def heard(*messages: bytes) -> bytes:
    """Records of frames, heard together."""
    frames = [frame for message in messages for frame in decode(message)]
    records = [
        RECORD.pack(
            HEAR * (at == len(frames)), each.type, each.flags, each.aux, each.stream, len(each.payload)
        )
        + each.payload
        for at, each in enumerate(frames, 1)
    ]
    return b"".join(records)


def act(what: int, number: int = 0) -> bytes:
    return RECORD.pack(ACT, what, 0, 0, 0, number)


def seeds() -> dict[str, dict[str, bytes]]:
    """Inputs by target and name."""
    known = vectors()
    payloads = {name: frame[HEADER_BYTES:] for name, frame in known.items()}
    kinds = {kind.__name__.lower(): at for at, kind in enumerate(KINDS)}
    opened = heard(known["open"])
    answer = heard(known["head"], known["data"]) + heard(known["data-fin-trailers"])
    challenge, welcome = known["challenge"], known["welcome"]
    signature = HEADER.unpack_from(known["hello"])[2]
    payloads["hello"] = payloads["hello"][:-signature]
    return {
        "frames": known | {"several": b"".join(known.values())},
        "messages": {name: bytes([at]) + payloads[name] for name, at in kinds.items() if name in payloads},
        "handshake_of_the_hub": {"hello": known["hello"]},
        "handshake_of_the_node": {"welcomed": len(challenge).to_bytes(2, "big") + challenge + welcome},
        "hub": {
            "answered": act(OPEN) + act(SEND, 5) + act(FLUSH) + answer + act(READ) + act(FLUSH),
            "stalled": act(OPEN) + heard(known["head"]) + heard(*[known["data"]] * 40),
            "cancelled": act(OPEN) + act(FLUSH) + act(RESET) + answer + act(WAIT, 60_001) + answer,
            "reset": act(OPEN) + heard(known["reset"]) + heard(known["reset"], known["credit"]),
            "reports": heard(known["status"], known["event"], known["pong"], known["goaway"]),
        },
        "node": {
            "asked": opened
            + heard(known["data"], known["data-fin"])
            + act(SEND, 7)
            + act(SEND, 5)
            + act(FLUSH),
            "credited": opened + act(SEND, 60_000) + heard(known["credit"]) + act(FLUSH) + act(FLUSH),
            "answered early": opened + act(SEND, 5) + act(DISCARD) + heard(known["data"], known["data-fin"]),
            "reset": opened + act(SEND, 7) + heard(known["reset"]) + heard(known["data"]),
            "jobs": heard(known["ping"], known["command"], known["goaway"]) + act(FLUSH) + opened,
        },
    }


def main() -> None:
    """Write each seed that is not there yet."""
    for target in TARGETS:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds()[target].items():
            (folder / name.replace(" ", "-")).write_bytes(data)


if __name__ == "__main__":
    main()
