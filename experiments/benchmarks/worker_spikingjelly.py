"""SpikingJelly's side of peers.py; runs in an environment with SpikingJelly."""

import contextlib
from importlib import metadata

import torch
from serve import peak_process_bytes, serve
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spikformer import Spikformer

# As the names of this project's registry say: depth, channels; heads and patches as published.
SIZES = {
    "spikformer_4_384": {"depths": 4, "embed_dims": 384, "num_heads": 12, "patch_size": 4},
    "spikformer_8_512_imagenet": {
        **{"depths": 8, "embed_dims": 512, "num_heads": 8, "patch_size": 16}
    },
}
NAMES = {"embed_dim": "embed_dims", "num_heads": "num_heads", "depth": "depths"}


def prepare(arguments):
    """See `serve.serve`."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    on_gpu = arguments["device"] == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    B, side, classes = arguments["batch_size"], arguments["image_size"], 10
    sizes = SIZES[arguments["model"]]
    sizes |= {NAMES[name]: value for name, value in arguments["overrides"].items()}
    sizes |= {"img_size_h": side, "img_size_w": side, "num_classes": classes}
    model = Spikformer(T=arguments["time_steps"], **sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(B, 3, side, side, device=device)
    labels = torch.randint(0, classes, (B,), device=device)
    called = torch.compile(model) if arguments["compiled"] else model

    def precision():
        if arguments["dtype"] == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, getattr(torch, arguments["dtype"]))

    def evaluation():
        model.eval()
        with torch.inference_mode(), precision():
            called(images)
        functional.reset_net(model)

    def train():
        model.train()
        optimizer.zero_grad()
        with precision():
            logits = called(images).mean(0)
            loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        functional.reset_net(model)

    about = (
        f"spikingjelly {metadata.version('spikingjelly')}, torch {torch.__version__}, "
        f"{torch.cuda.get_device_name() if on_gpu else f'{torch.get_num_threads()} threads'}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    peak = torch.cuda.max_memory_allocated if on_gpu else peak_process_bytes
    return about, {"evaluation": evaluation, "training": train}, wait, {}, peak


if __name__ == "__main__":
    serve(prepare)
