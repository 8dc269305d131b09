"""Running the Hugging Face client: its order, its environment, and what its end means to us."""

import json
from collections.abc import Mapping
from pathlib import Path

from models.errors import DownloadFailed
from models.sources import huggingface_client
from models.sources.base import Job
from models.sources.child import Ended, run_python


async def run_client(order: Mapping[str, object], job: Job, *, model_id: str, what: str) -> None:
    """Have the client do what the order says; cancelling ends it.

    Raises:
        DownloadFailed: It could not; `what` begins the reason.
    """
    ended = await run_python(
        [str(Path(huggingface_client.__file__)), json.dumps(order)],
        lock=job.lock,
        bytes_per_s=job.bytes_per_s,
        extra_environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        on_line=lambda _: None,
    )
    if ended.code != 0:
        answer = _answer(ended)
        said = ended.lines[-1] if ended.lines else f"exit code {ended.code}"
        raise DownloadFailed(
            model_id,
            f"{what}: {answer.get('reason', said)}",
            answer.get("remedy", "Try again: it goes on where it stopped"),
        )


def _answer(ended: Ended) -> dict[str, str]:
    """Return the client's last word, or nothing if it died without one."""
    for line in reversed(ended.lines):
        if line.startswith(huggingface_client.ANSWER):
            return dict(json.loads(line.removeprefix(huggingface_client.ANSWER)))
    return {}
