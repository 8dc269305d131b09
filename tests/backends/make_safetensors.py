"""Makes a folder of safetensors of the GGUF model that the tests have, since no package index carries one.

    python -m tests.backends.make_safetensors DATA_DIRECTORY MODEL

Run by `make fixtures-vllm`. The conversion runs in vLLM's environment, which has torch and transformers;
what transformers needs to read GGUF is put beside the folder, not into that environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from models.catalog import load_catalog
from models.store import ModelStore
from runtime.engines import EngineEnvironment

_READERS = ("gguf==0.19.0", "accelerate==1.15.0")
_CONVERT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
weights = {
    name: tensor.to(torch.bfloat16).contiguous()
    for name, tensor in model.state_dict().items()
    if name != "lm_head.weight"  # tied to the embedding
}
save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
for unwanted in ("quantization_config", "_name_or_path"):
    config.pop(unwanted, None)
(folder / "config.json").write_text(json.dumps(config, indent=2))
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
"""


def convert(python: Path, source: Path, folder: Path) -> None:
    """Write the folder whole, or not at all."""
    readers, fresh = folder.with_name(".readers"), folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--upgrade", "--target", str(readers), *_READERS], check=True)
    named = fresh / "source.gguf"  # transformers looks at the end of the name
    named.symlink_to(source)
    environment = {**os.environ, "PYTHONPATH": str(readers), "HF_HUB_OFFLINE": "1"}
    subprocess.run([python, "-c", _CONVERT, named, fresh], env=environment, check=True)
    named.unlink()
    fresh.rename(folder)


if __name__ == "__main__":
    data, model = Path(sys.argv[1]), load_catalog().require(sys.argv[2])
    stored = ModelStore(data / "models").find(model)
    target = data / "safetensors" / model.id
    if stored is not None and not (target / "config.json").exists():
        convert(EngineEnvironment(data / "engines", "vllm-cpu").python, stored.path.resolve(), target)
