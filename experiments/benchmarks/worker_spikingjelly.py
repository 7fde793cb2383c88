"""SpikingJelly's side of peers.py; runs in an environment with SpikingJelly."""

import contextlib
from importlib import metadata

import torch
from serve import Side, peak_process_bytes, serve
from spikingjelly.activation_based import functional
from spikingjelly_models import create


def prepare(arguments):
    """See `serve.serve`."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    on_gpu = arguments["device"] == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    B, side, classes = arguments["batch_size"], arguments["image_size"], 10
    sizes = {"T": arguments["time_steps"], "num_classes": classes}
    model, differs = create(arguments["model"], side, arguments["overrides"], **sizes)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
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
            loss = torch.nn.functional.cross_entropy(_mean(called(images)), labels)
        loss.backward()
        optimizer.step()
        functional.reset_net(model)

    about = (
        f"spikingjelly {metadata.version('spikingjelly')}, torch {torch.__version__}, "
        f"{torch.cuda.get_device_name() if on_gpu else f'{torch.get_num_threads()} threads'}; "
        f"{differs}"
    )
    return Side(
        about,
        parameters=sum(p.numel() for p in model.parameters()),
        tasks={"evaluation": evaluation, "training": train},
        wait=torch.cuda.synchronize if on_gpu else lambda: None,
        peak_bytes=torch.cuda.max_memory_allocated if on_gpu else peak_process_bytes,
    )


def _mean(logits):
    """Logits [B, classes]; Spikformer leaves the mean over time to the caller."""
    return logits.mean(0) if logits.ndim == 3 else logits


if __name__ == "__main__":
    serve(prepare)
